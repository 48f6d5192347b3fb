"""Refuses commands no machine could execute, before anything is started for them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from codeagent.sandboxes.protocol import ExecSpec, SandboxDriver, SandboxFailure

_LONGEST_ARGUMENT_BYTES = 128 << 10
_LONGEST_COMMAND_BYTES = 1 << 20


def check_command(spec: ExecSpec) -> None:
    """Raises `SandboxFailure` (`bad_command`) for what the kernel would refuse to execute."""
    words = [*spec.argv, *(f"{name}={value}" for name, value in spec.env.items())]
    try:
        sizes = [len(os.fsencode(word)) for word in words]
    except UnicodeEncodeError:
        raise _bad_command("the command cannot be encoded") from None
    if not spec.argv or not spec.argv[0] or any("\0" in word for word in words):
        raise _bad_command("the command is empty or contains NUL bytes")
    if max(sizes) >= _LONGEST_ARGUMENT_BYTES or sum(sizes) > _LONGEST_COMMAND_BYTES:
        raise _bad_command("the command is too long")
    if any(not name or "=" in name for name in spec.env):
        raise _bad_command("an environment variable has no usable name")


def check_reach(driver: SandboxDriver, egress: Sequence[str]) -> None:
    """Raises `SandboxFailure` (`egress_unsupported`) where commands that have to reach a host would reach none."""
    if egress and not driver.reaches_out:
        detail = f"sandboxes of {driver.name} let no command reach a host"
        raise SandboxFailure(detail, reason="egress_unsupported", retryable=False)


def _bad_command(detail: str) -> SandboxFailure:
    return SandboxFailure(detail, reason="bad_command", retryable=False)
