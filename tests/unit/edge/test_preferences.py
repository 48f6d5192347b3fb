"""Prefer (RFC 7240): understood where it can be, ignored where it cannot."""

from __future__ import annotations

import pytest

from codeagent.edge.preferences import Preferences, parse


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], Preferences()),
        (["wait=10"], Preferences(wait_seconds=10)),
        (["Wait = 10"], Preferences(wait_seconds=10)),
        (['wait="10"'], Preferences(wait_seconds=10)),
        (["wait=600"], Preferences(wait_seconds=60)),
        (["wait=0"], Preferences()),
        (["wait=-1"], Preferences()),
        (["wait=soon"], Preferences()),
        (["wait=99999999999999999999"], Preferences()),
        (["wait=1, wait=2"], Preferences(wait_seconds=1)),
        (["wait=5; trace=1, handling=lenient"], Preferences(wait_seconds=5)),
        (["respond-async, wait=5"], Preferences(wait_seconds=5, respond_async=True)),
        (["respond-async", "return=minimal"], Preferences(minimal=True, respond_async=True)),
        (["return=representation"], Preferences()),
        ([",,;=,"], Preferences()),
    ],
)
def test_what_a_client_prefers(lines: list[str], expected: Preferences) -> None:
    assert parse(lines) == expected


@pytest.mark.parametrize(
    ("lines", "applied"),
    [
        (["wait=600"], "wait=60"),
        (["respond-async, wait=5, return=minimal"], "respond-async, wait=5, return=minimal"),
        (["wait=soon"], ""),
    ],
)
def test_what_is_applied_is_told(lines: list[str], applied: str) -> None:
    assert parse(lines).applied() == applied
