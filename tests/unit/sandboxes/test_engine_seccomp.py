"""The engines' profile says what the two seccomp programs say."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from codeagent.sandboxes import engine_seccomp, syscalls

PROFILE = engine_seccomp.profile()


def holds(condition: dict[str, Any], arguments: list[int]) -> bool:
    value = arguments[condition["index"]]
    if condition["op"] == "SCMP_CMP_EQ":
        return bool(value == condition["value"])
    return bool(value & condition["value"] == condition["valueTwo"])


def answers(name: str, *arguments: int) -> set[int]:
    """Of every rule that is about such a call: 0 where it is allowed, else the error. An engine sees to no order."""
    return {
        0 if rule["action"] == "SCMP_ACT_ALLOW" else rule["errnoRet"]
        for rule in PROFILE["syscalls"]
        if name in rule["names"] and all(holds(condition, list(arguments)) for condition in rule.get("args", []))
    }


def allowed(name: str, *arguments: int) -> bool:
    return answers(name, *arguments) == {0}


def not_permitted(name: str, *arguments: int) -> bool:
    return answers(name, *arguments) == {errno.EPERM}


def test_calls_are_allowed_and_denied_as_listed() -> None:
    assert all(allowed(name, 0, 0, 0) for name in syscalls.ALLOWED)
    assert all(not_permitted(name, 0, 0, 0) for name in syscalls.DENIED)
    assert not answers("clone3", 0, 0, 0) | answers("made_up", 0, 0, 0)


@pytest.mark.parametrize("request_", syscalls.TERMINAL_INJECTIONS)
@pytest.mark.parametrize("high", [0, 1 << 32, 0xFFFFFFFF << 32])
def test_nothing_types_into_a_terminal(request_: int, high: int) -> None:
    assert not_permitted("ioctl", 0, request_ | high)


def test_every_other_request_to_a_device_is_allowed() -> None:
    others = {number ^ (1 << bit) for number in syscalls.TERMINAL_INJECTIONS for bit in range(32)} | set(
        range(0x5400, 0x5500)
    )
    assert all(allowed("ioctl", 0, number) for number in others - set(syscalls.TERMINAL_INJECTIONS))


@pytest.mark.parametrize("flag", syscalls.NAMESPACE_FLAGS)
def test_no_namespace_is_made_by_clone(flag: int) -> None:
    assert allowed("clone", 0x11)
    assert not_permitted("clone", flag | 0x11)


def test_sockets_of_other_families_are_refused() -> None:
    assert all(allowed("socket", family, 1, 0) for family in syscalls.SOCKET_FAMILIES)
    assert allowed("socket", 16, 3, 0)
    assert not allowed("socket", 16, 3, 4)
    assert not allowed("socket", 40, 1, 0)
    assert not allowed("socket", 1 << 32 | 1, 1, 0)
