"""Whoever asks for what is not made here is told so; whoever asks for anything gets it."""

from __future__ import annotations

import pytest

from codeagent.edge.negotiation import check_acceptable
from codeagent.errors import Rejected


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "",
        "*/*",
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/*;q=0.1",
        "text/html, application/json;q=0.5",
        "text/event-stream",
        "text/*",
        "text/html,application/xhtml+xml,*/*;q=0.8",
    ],
)
def test_an_answer_can_be_made(accept: str | None) -> None:
    check_acceptable(accept)


@pytest.mark.parametrize(
    "accept", ["text/html", "image/*", "application/xml", "application/json;q=0", "*/*;q=0.0", "x"]
)
def test_an_answer_cannot_be_made(accept: str) -> None:
    with pytest.raises(Rejected) as refused:
        check_acceptable(accept)
    assert (refused.value.status, refused.value.code) == (406, "not_acceptable")
