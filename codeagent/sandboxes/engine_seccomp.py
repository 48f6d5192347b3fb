"""The system call filter of every sandbox, in the words of container engines: one JSON profile instead of two programs.

A profile has one default, which is that a call does not exist, and one condition on an argument cannot be joined with
another on the same one. So what `seccomp` denies by argument is written here twice: everything else is allowed, and it
is not permitted. The two never overlap, so that their order does not matter.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codeagent.sandboxes import syscalls

_LOW_HALF_BITS = 32
_LOW_HALF = (1 << _LOW_HALF_BITS) - 1
_NETLINK, _NETLINK_ROUTE, _UNIX = 16, 0, 1


def write_profile(path: Path) -> Path:
    """Blocking. Raises `OSError`."""
    path.write_text(json.dumps(profile()), encoding="ascii")
    return path


def profile() -> dict[str, Any]:
    """In the format of Docker and Podman. A name that an architecture lacks is passed over by the engine."""
    conditional = ("clone", "ioctl")
    rules = [_rule("SCMP_ACT_ALLOW", *(name for name in syscalls.ALLOWED if name not in conditional))]
    rules.append(_not_permitted(*syscalls.DENIED))
    namespaces = sum(syscalls.NAMESPACE_FLAGS)
    rules.append(_allowed_if("clone", _masked(0, namespaces, 0)))
    rules += [_not_permitted_if("clone", _masked(0, flag, flag)) for flag in syscalls.NAMESPACE_FLAGS]
    rules += [_allowed_if("ioctl", condition) for condition in _neither(1, *syscalls.TERMINAL_INJECTIONS)]
    injections = [_masked(1, _LOW_HALF, request) for request in syscalls.TERMINAL_INJECTIONS]
    rules += [_not_permitted_if("ioctl", condition) for condition in injections]
    rules += [_allowed_if("socket", _equal(0, family)) for family in syscalls.SOCKET_FAMILIES]
    rules.append(_allowed_if("socket", _equal(0, _NETLINK), _equal(2, _NETLINK_ROUTE)))
    rules.append(_allowed_if("socketpair", _equal(0, _UNIX)))
    rules += [_allowed_if("personality", _equal(0, persona)) for persona in syscalls.PERSONALITIES]
    return {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": errno.ENOSYS, "syscalls": rules}


def _neither(index: int, first: int, second: int) -> Iterator[dict[str, Any]]:
    """Conditions, one of which holds for every number whose lower 32 bits are neither of the two."""
    differing = first ^ second
    for bit in (1 << position for position in range(_LOW_HALF_BITS)):
        if not bit & differing:
            yield _masked(index, bit, ~first & bit)
    part = differing
    while True:  # every combination of the bits in which the two differ
        if part not in (first & differing, second & differing):
            yield _masked(index, differing, part)
        if part == 0:
            return
        part = (part - 1) & differing


def _rule(action: str, *names: str) -> dict[str, Any]:
    return {"names": list(names), "action": action}


def _allowed_if(name: str, *conditions: dict[str, Any]) -> dict[str, Any]:
    return {**_rule("SCMP_ACT_ALLOW", name), "args": list(conditions)}


def _not_permitted(*names: str) -> dict[str, Any]:
    return {**_rule("SCMP_ACT_ERRNO", *names), "errnoRet": errno.EPERM}


def _not_permitted_if(name: str, condition: dict[str, Any]) -> dict[str, Any]:
    return {**_not_permitted(name), "args": [condition]}


def _equal(index: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}


def _masked(index: int, mask: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
