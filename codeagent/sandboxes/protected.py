"""Takes from a patch what it may not change."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from codeagent.sandboxes.patches import sections
from codeagent.sandboxes.protocol import Limits


def without_protected(patch: bytes, patterns: Sequence[str], limits: Limits) -> tuple[bytes, tuple[str, ...]]:
    """The patch without its changes to files that the patterns name, and those files, in order.

    Raises `SandboxFailure` for a patch that is none, see `validate_patch`. Blocking.
    """
    kept: list[bytes] = []
    dropped: dict[str, None] = {}
    for path, text in sections(patch, limits):
        if any(covers(pattern, path) for pattern in patterns):
            dropped[path] = None
        else:
            kept.append(text)
    return b"".join(kept), tuple(dropped)


def covers(pattern: str, path: str) -> bool:
    """Whether a `PathPattern` means the file, or a directory that it is in."""
    anchored = "/" in pattern.rstrip("/")
    parts = pattern.strip("/").split("/")
    names = path.split("/")
    if pattern.endswith("/"):
        names = names[:-1]  # a file is no directory, whatever its name
    return _reaches(parts if anchored else ["**", *parts], names)


def _reaches(parts: Sequence[str], names: Sequence[str]) -> bool:
    """Whether the parts match all names, or the first of them. In time that grows with both, whoever wrote them."""
    reached = {0}
    for part in parts:
        if part == "**":
            reached = set(range(min(reached), len(names) + 1))
        else:
            reached = {i + 1 for i in reached if i < len(names) and fnmatchcase(names[i], part)}
        if not reached:
            return False
    return True
