"""Compiles the two seccomp programs every sandbox runs under: an allow-list, and denials by argument on top of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from codeagent.sandboxes import syscalls
from codeagent.sandboxes.protocol import SandboxUnavailable

_LOW_HALF = 0xFFFFFFFF
_NETLINK, _NETLINK_ROUTE, _UNIX = 16, 0, 1


def write_programs(directory: Path) -> tuple[Path, Path]:
    """Writes both programs for this machine's architecture. Blocking. Raises `SandboxUnavailable`."""
    seccomp = _library()
    paths = (directory / "allow.bpf", directory / "deny.bpf")
    for path, program in zip(paths, (_allow_list(seccomp), _argument_denials(seccomp)), strict=True):
        temporary = path.with_suffix(f".{os.getpid()}")
        with temporary.open("wb") as file:
            program.export_bpf(file)
        temporary.chmod(0o444)
        temporary.replace(path)
    return paths


def _library() -> Any:
    try:
        import pyseccomp  # noqa: PLC0415  # loads a shared library when imported
    except (ImportError, RuntimeError, OSError):
        raise SandboxUnavailable(["libseccomp is missing: apt-get install libseccomp2"]) from None
    return pyseccomp


def _known(seccomp: Any, names: tuple[str, ...]) -> list[str]:
    """Names this machine's libseccomp and architecture have; a negative number stands for a call of another one."""
    found = []
    for name in names:
        try:
            number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, name)
        except (OSError, ValueError):
            continue
        if number >= 0:
            found.append(name)
    return found


def _allow_list(seccomp: Any) -> Any:
    """Unknown calls do not exist (ENOSYS), so that a newer kernel opens nothing and libraries fall back.

    That includes clone3, whose flags no filter can see.
    """
    program = seccomp.SyscallFilter(seccomp.ERRNO(errno.ENOSYS))
    for name in _known(seccomp, syscalls.ALLOWED):
        program.add_rule(seccomp.ALLOW, name)
    for name in _known(seccomp, syscalls.DENIED):
        program.add_rule(seccomp.ERRNO(errno.EPERM), name)
    # Equality compares all 64 bits: a family with high bits set matches nothing.
    for family in syscalls.SOCKET_FAMILIES:
        program.add_rule(seccomp.ALLOW, "socket", seccomp.Arg(0, seccomp.EQ, family))
    route = (seccomp.Arg(0, seccomp.EQ, _NETLINK), seccomp.Arg(2, seccomp.EQ, _NETLINK_ROUTE))
    program.add_rule(seccomp.ALLOW, "socket", *route)
    program.add_rule(seccomp.ALLOW, "socketpair", seccomp.Arg(0, seccomp.EQ, _UNIX))
    for persona in syscalls.PERSONALITIES:
        program.add_rule(seccomp.ALLOW, "personality", seccomp.Arg(0, seccomp.EQ, persona))
    return program


def _argument_denials(seccomp: Any) -> Any:
    program = seccomp.SyscallFilter(seccomp.ALLOW)
    denied = seccomp.ERRNO(errno.EPERM)
    for flag in syscalls.NAMESPACE_FLAGS:
        program.add_rule(denied, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, flag, flag))
    for request in syscalls.TERMINAL_INJECTIONS:
        program.add_rule(denied, "ioctl", seccomp.Arg(1, seccomp.MASKED_EQ, _LOW_HALF, request))
    return program
