"""What a person is told about the level of isolation: before anything is started, and once it is known."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from codeagent.errors import Unavailable
from codeagent.sandboxes.protocol import IsolationLevel
from codeagent.sandboxes.select import lacking, missing_for


def require_level(level: int, state_dir: Path) -> None:
    """Raises `Unavailable` when sandboxes of that level plainly cannot be made here: why, and what can be done."""
    reasons = missing_for(IsolationLevel(level), state_dir)
    if not reasons:
        return
    lines = [f"sandboxes of level {level} cannot be made here:", *_points(reasons)]
    weaker = IsolationLevel.RLIMIT
    if level > weaker and not missing_for(weaker, state_dir):
        lines += [
            "Change that, or consent to the weaker level 1 with `--allow-level 1` (`make demo LEVEL=1`), at which",
            *_points(lacking(weaker, is_root=os.geteuid() == 0)),
        ]
    raise Unavailable("\n".join(lines), code="sandbox_unavailable")


def notice(level: int) -> str:
    """What sandboxes of this level do without; empty where they lack nothing that level 2 has."""
    gaps = lacking(IsolationLevel(level), is_root=os.geteuid() == 0)
    if not gaps:
        return ""
    return "\n".join(
        [
            f"Sandboxes run at level {level}, as you allowed. That means:",
            *_points(gaps),
            "They still have no network, a read-only system, their own namespaces and filtered system calls.",
        ]
    )


def _points(lines: Iterable[str]) -> list[str]:
    return [f"  - {line}" for line in lines]
