"""The system call filter of every sandbox, in the words of container engines: one JSON profile instead of two programs.

A profile can only list what is allowed, and one condition on an argument cannot be joined with another on the same
one. So what `seccomp` denies by argument is written here as everything else being allowed.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codeagent.sandboxes import syscalls

_LOW_HALF_BITS = 32
_NETLINK, _NETLINK_ROUTE, _UNIX = 16, 0, 1


def write_profile(path: Path) -> Path:
    """Blocking. Raises `OSError`."""
    path.write_text(json.dumps(profile()), encoding="ascii")
    return path


def profile() -> dict[str, Any]:
    """In the format of Docker and Podman. A name that an architecture lacks is passed over by the engine."""
    conditional = ("clone", "ioctl")
    rules = [_rule("SCMP_ACT_ALLOW", *(name for name in syscalls.ALLOWED if name not in conditional))]
    denied = _rule("SCMP_ACT_ERRNO", *syscalls.DENIED)
    rules.append({**denied, "errnoRet": errno.EPERM})
    namespaces = sum(syscalls.NAMESPACE_FLAGS)
    rules.append(_allowed_if("clone", _masked(0, namespaces, 0)))
    rules += [_allowed_if("ioctl", condition) for condition in _neither(1, *syscalls.TERMINAL_INJECTIONS)]
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


def _equal(index: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}


def _masked(index: int, mask: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
