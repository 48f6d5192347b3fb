"""What one command has changed: the difference between two patches of one base, file by file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from codeagent.sandboxes.protocol import UNCHANGED, FileState

ChangeKind = Literal["added", "modified", "deleted", "mode"]
States = Mapping[str, FileState]
"""Files of a patch (`Patch.states`). A file of the base that no patch names is as it was."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """`mode`: the executable bit alone."""

    path: str
    kind: ChangeKind


def changes(before: States, after: States) -> list[FileChange]:
    """In the order of paths. Files whose content came back to what it was have not changed."""
    found = []
    for path in sorted(before.keys() | after.keys()):
        kind = _kind(before.get(path), after.get(path))
        if kind is not None:
            found.append(FileChange(path, kind))
    return found


def _kind(before: FileState | None, after: FileState | None) -> ChangeKind | None:
    if before == after:
        return None
    was = before.blob != "" if before is not None else after is not None and not after.created
    there = after.blob != "" if after is not None else before is not None and not before.created
    if not there:
        return "deleted" if was else None
    if not was:
        return "added"
    return "mode" if _blob(before) == _blob(after) else "modified"


def _blob(state: FileState | None) -> str:
    return UNCHANGED if state is None else state.blob
