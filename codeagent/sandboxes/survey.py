"""What there is in a state directory, as its machine's operators see it: workspaces, live and left over, with their
processes, mounts and groups. Looks only, and needs no driver."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from codeagent.sandboxes import mounts
from codeagent.sandboxes.cgroup_layout import find_trees
from codeagent.sandboxes.cgroups import ControlGroups
from codeagent.sandboxes.machine import group_name
from codeagent.sandboxes.notes import Note, Notes
from codeagent.sandboxes.protocol import SandboxUnavailable
from codeagent.sandboxes.runsc import bundles_of

_MOST_FILES = 100_000


@dataclass(frozen=True, slots=True)
class Found:
    """One workspace. `note` is None where its worker has left none, such as while it is opened. `slot_uid` owns its
    files; `size_bytes` is None for a directory of more files than anybody wants to count now."""

    name: str
    note: Note | None
    slot_uid: int | None
    made_at: datetime
    size_bytes: int | None
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Survey:
    """`live`: a worker has the directory now. `groups` and `mounted` are counted over all workspaces, `bundles` are
    those that runsc was started with."""

    live: bool
    workspaces: tuple[Found, ...]
    groups: int
    mounted: int
    bundles: int

    @property
    def processes(self) -> int:
        return len({pid for found in self.workspaces for pid in found.pids})


def survey(state_dir: Path) -> Survey:
    """Blocking. Raises `SandboxUnavailable` where there is no such directory, or it cannot be looked into."""
    root = state_dir / "workspaces"
    notes = {note.workspace: note for note in Notes(state_dir).all()}
    try:
        names = sorted(entry.name for entry in root.iterdir()) if root.exists() else []
        if not state_dir.is_dir():
            raise SandboxUnavailable([f"there is no directory {state_dir}"])
        live = is_owned(state_dir)
        found = tuple(_found(root / name, notes.get(name)) for name in names)
        bundles = len(list(bundles_of(state_dir).glob("*")))
    except OSError as error:
        raise SandboxUnavailable([f"{error.filename} cannot be looked into: {error.strerror}"]) from None
    mounted = len(mounts.mounted_below(root)) if root.exists() else 0
    return Survey(live, found, _groups(state_dir), mounted, bundles)


def is_owned(state_dir: Path) -> bool:
    """Whether a worker that lives holds the directory. Raises `OSError`."""
    try:
        handle = os.open(state_dir / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _found(directory: Path, note: Note | None) -> Found:
    files = directory / "files"
    owner = files.stat().st_uid if files.exists() else None
    # A slot is of one workspace alone; a worker's own user is of everything it does.
    is_slot = owner is not None and owner not in (0, os.geteuid())
    pids = tuple(_processes(owner)) if owner is not None and is_slot else ()
    made_at = datetime.fromtimestamp(directory.stat().st_mtime, UTC)
    return Found(directory.name, note, owner if is_slot else None, made_at, _size(files), pids)


def _processes(uid: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                yield int(entry.name)


def _size(files: Path) -> int | None:
    if not files.exists():
        return 0
    if files.is_mount():
        space = os.statvfs(files)
        return (space.f_blocks - space.f_bfree) * space.f_frsize
    size, left = 0, _MOST_FILES
    for folder, _, names in os.walk(files):
        for name in names:
            with suppress(OSError):
                size += Path(folder, name).lstat().st_blocks * 512
            left -= 1
            if left == 0:
                return None
    return size


def _groups(state_dir: Path) -> int:
    try:
        return len(ControlGroups(find_trees(), group_name(state_dir)).leftovers())
    except (SandboxUnavailable, OSError):
        return 0
