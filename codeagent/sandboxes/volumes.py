"""The directories of workspaces on the host: made, measured out, found again after a crash, and removed."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from codeagent.sandboxes import mounts
from codeagent.sandboxes.protocol import Limits, SandboxFailure

_BASE_INODES = 4
"""Base objects for each file a workspace may hold: its own, and its share of fan-out directories and trees."""


class Volumes:
    """Makes and removes workspace directories below `root`.

    As root, files and base are memory file systems of limited size that belong to the slot. Otherwise they are plain
    directories, and only the size of each file is limited.
    """

    def __init__(self, root: Path, *, mounted: bool) -> None:
        self.root = root
        self._mounted = mounted

    def prepare(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o711)

    def make(self, name: str, slot_uid: int, limits: Limits) -> Path:
        """Blocking. Raises `SandboxFailure`; what was made until then stays, to be removed by `remove`."""
        directory = self.root / name
        try:
            directory.mkdir()
            directory.chmod(0o711)
            for part, inodes in (("files", limits.workspace_inodes), ("base", limits.workspace_inodes * _BASE_INODES)):
                (directory / part).mkdir(mode=0o700)
                if self._mounted:
                    mounts.mount_tmpfs(
                        directory / part, size_bytes=limits.workspace_bytes, inodes=inodes, owner=slot_uid
                    )
        except OSError as error:
            raise SandboxFailure(f"the workspace cannot be made: {error.strerror}") from error
        return directory

    def add(self, directory: Path, part: str, slot_uid: int, size_bytes: int, inodes: int) -> Path:
        """One more, within a workspace's directory. Blocking. Raises `SandboxFailure`."""
        try:
            (directory / part).mkdir(mode=0o700)
            if self._mounted:
                mounts.mount_tmpfs(directory / part, size_bytes=size_bytes, inodes=inodes, owner=slot_uid)
        except OSError as error:
            raise SandboxFailure(f"a volume cannot be made: {error.strerror}") from error
        return directory / part

    def drop(self, volume: Path) -> None:
        """Blocking, idempotent. Raises `SandboxFailure` if it stays."""
        try:
            if self._mounted and volume.exists():
                mounts.unmount(volume)
            remove_tree(volume)
        except OSError as error:
            raise SandboxFailure(f"a volume cannot be removed: {error.strerror}") from error

    def seal_base(self, directory: Path) -> None:
        """From now on nobody writes to the base, whatever is bound where."""
        if self._mounted:
            mounts.make_read_only(directory / "base")

    def remove(self, name: str) -> None:
        """Blocking, idempotent. Raises `SandboxFailure` if something stays."""
        directory = self.root / name
        try:
            if self._mounted:
                for point in mounts.mounted_below(directory):
                    mounts.unmount(point)
            remove_tree(directory)
        except OSError as error:
            raise SandboxFailure(f"a workspace cannot be removed: {error.strerror}") from error

    def exists(self, name: str) -> bool:
        return (self.root / name).exists()

    def names(self) -> list[str]:
        """Every workspace there is, whoever made it."""
        with suppress(FileNotFoundError):
            return sorted(entry.name for entry in self.root.iterdir())
        return []


def remove_tree(directory: Path) -> None:
    """Removes a tree of any depth: a program inside may have nested directories beyond what recursion can follow."""
    if not directory.is_dir():
        return
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _empty(handle)
    finally:
        os.close(handle)
    directory.rmdir()


def _empty(root: int) -> None:
    """Hoists each nested directory to the top before entering it, so that depth never grows."""
    prefix, hoisted = secrets.token_hex(8), 0
    while names := os.listdir(root):
        for name in names:
            if not _is_directory(name, root):
                os.unlink(name, dir_fd=root)
                continue
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
            try:
                for nested in os.listdir(inner):  # noqa: PTH208  # a descriptor
                    if _is_directory(nested, inner):
                        hoisted += 1
                        os.rename(nested, f"{prefix}-{hoisted}", src_dir_fd=inner, dst_dir_fd=root)
                    else:
                        os.unlink(nested, dir_fd=inner)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=root)


def _is_directory(name: str, parent: int) -> bool:
    if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        return False
    os.chmod(name, 0o700, dir_fd=parent)  # its owner may have locked it, even against himself
    return True
