"""Limits as people write them."""

from __future__ import annotations

from dataclasses import fields

import pytest

from codeagent.cli.sandbox_exec import DEFAULT_SECONDS, ExecRequest
from codeagent.errors import InvalidInput
from codeagent.sandboxes.bounds import BOUNDS, limited
from codeagent.sandboxes.protocol import Limits


def test_every_limit_has_a_bound_and_its_default_is_within() -> None:
    assert BOUNDS.keys() == {field.name for field in fields(Limits)}
    for name, bound in BOUNDS.items():
        assert bound.least <= getattr(Limits(), name) <= bound.most


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("memory_bytes", "67108864", 64 << 20),
        ("memory_bytes", "64M", 64 << 20),
        ("file_bytes", "1.5k", 1536),
        ("workspace_bytes", "2g", 2 << 30),
        ("cpu_cores", "0.5", 0.5),
        ("wall_seconds", "1.25", 1.25),
        ("processes", "8", 8),
    ],
)
def test_what_is_given_replaces_the_default(name: str, text: str, value: float) -> None:
    changed = getattr(limited(Limits(), {name: text}), name)
    assert (changed, type(changed)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("memory", "1G", "memory_bytes, processes"),
        ("memory_bytes", "1K", "8388608 to 1099511627776 bytes"),
        ("memory_bytes", "lots", "8388608 to"),
        ("memory_bytes", "-1", "8388608 to"),
        ("memory_bytes", "nan", "8388608 to"),
        ("processes", "8.5", "whole numbers"),
        ("processes", "1k", "1 to 32768 processes"),
        ("wall_seconds", "0", "0.1 to 86400 seconds"),
        ("open_files", "", "16 to"),
        ("open_files", "1e3", "16 to"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(name: str, text: str, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        limited(Limits(), {name: text})
    assert says in caught.value.detail


def request(*, timeout: float | None = None, limits: tuple[str, ...] = (), env: tuple[str, ...] = ()) -> ExecRequest:
    return ExecRequest(("true",), None, timeout, limits, env, 2, None, None)


def test_a_command_has_a_minute_unless_it_is_given_more_or_less() -> None:
    assert request().bounds().wall_seconds == DEFAULT_SECONDS
    assert request(timeout=2.5).bounds().wall_seconds == 2.5
    assert request(limits=("wall_seconds=7", "processes=9")).bounds() == Limits(wall_seconds=7.0, processes=9)
    with pytest.raises(InvalidInput, match="one of them"):
        request(timeout=1, limits=("wall_seconds=7",)).bounds()


@pytest.mark.parametrize("env", ["A", "=x", "1A=x", "A B=x", "A=x\0y", "Ä=x"])
def test_what_is_no_variable_is_refused(env: str) -> None:
    with pytest.raises(InvalidInput, match="--env"):
        request(env=(env,)).environment()


def test_variables_keep_their_values_as_they_are() -> None:
    assert request(env=("A=b=c", "_x1=", "A2= d")).environment() == {"A": "b=c", "_x1": "", "A2": " d"}
