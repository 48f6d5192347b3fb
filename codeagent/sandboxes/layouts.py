"""Archives of dependencies as sandboxes see them: unpacked once on this machine, for all workspaces that use them."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
import tempfile
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from codeagent.sandboxes import archives
from codeagent.sandboxes.dependencies import MOST_FILES, bounds, kept_link
from codeagent.sandboxes.protocol import Limits, SandboxFailure
from codeagent.sandboxes.uninterrupted import in_thread
from codeagent.sandboxes.unpacking import unpack

MOST_BYTES = 20 << 30
_HEADER_BYTES = 1024
"""Of each file of an archive, beside its content."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Layouts:
    """One directory below `root` for each archive, named by its digest, that nobody but this process can change.

    Any number of workspaces use one at once. Those that nobody uses are removed, the longest unused first, while all
    together are larger than `most_bytes`.
    """

    def __init__(self, root: Path, most_bytes: int = MOST_BYTES) -> None:
        self._above = root
        # A rename may survive a power cut that the files' content does not.
        self._root = root / _BOOT.read_text(encoding="ascii").strip()
        self._most = most_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._users: Counter[str] = Counter()
        self._making: dict[str, asyncio.Lock] = {}

    def prepare(self) -> None:
        """Blocking. What an earlier worker has laid out since the machine was started is used again."""
        self._root.mkdir(parents=True, exist_ok=True)
        for directory in (self._above, self._root):
            directory.chmod(0o711)
        for entry in self._above.iterdir():
            if entry != self._root:
                _remove(entry)
        for entry in sorted(self._root.iterdir(), key=lambda entry: entry.stat().st_mtime):
            if entry.name.startswith("."):
                _remove(entry)
            else:
                self._sizes[entry.name] = _size(entry)

    async def take(self, archive: Path, limits: Limits) -> Path:
        """Where the content of `archive` lies, until it is given back. Raises `SandboxFailure`."""
        with _explained():
            name = await in_thread(_digest, archive, limits)
        self._users[name] += 1
        layout = self._root / name
        try:
            async with self._making.setdefault(name, asyncio.Lock()):
                if name not in self._sizes:
                    self._sizes[name] = await self._lay_out(archive, layout, limits)
            self._sizes.move_to_end(name)
            # The order outlives this process.
            await in_thread(os.utime, layout)
        except BaseException:
            await self.give_back(layout)
            raise
        return layout

    async def _lay_out(self, archive: Path, layout: Path, limits: Limits) -> int:
        with _explained():
            building = Path(await in_thread(tempfile.mkdtemp, prefix=".", dir=self._root))
            own, content = building / "archive", building / "content"
            try:
                # Others may write to theirs all the time: what is unpacked has to be what the name says.
                if await in_thread(_digest, archive, limits, own) != layout.name:
                    raise _refused("the archive of the dependencies has changed while it was read")
                await in_thread(content.mkdir)
                await unpack(archives.Unpacker(content, os.geteuid(), kept_link), own, bounds(limits))
                await in_thread(content.chmod, 0o755)
                await in_thread(content.rename, layout)
            finally:
                await in_thread(_remove, building)
        return await in_thread(_size, layout)

    async def give_back(self, layout: Path) -> None:
        """Whoever took it uses it no more."""
        self._users[layout.name] -= 1
        for name in [name for name in self._sizes if self._users[name] <= 0]:
            if sum(self._sizes.values()) <= self._most:
                break
            async with self._making.setdefault(name, asyncio.Lock()):
                if self._users[name] <= 0 and self._sizes.pop(name, None) is not None:
                    await in_thread(_discard, self._root / name)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _no_room() from error
        raise SandboxFailure(f"the dependencies cannot be laid out: {error.strerror}") from error
    except SandboxFailure as failure:
        if failure.reason == "workspace_full":
            raise _no_room() from failure
        raise


def _no_room() -> SandboxFailure:
    return SandboxFailure("this machine has no room for the dependencies", reason="storage_full")


def _discard(layout: Path) -> None:
    # Renamed first: what is left of it must never pass for the whole.
    doomed = layout.with_name(f".{layout.name}")
    with suppress(FileNotFoundError):
        layout.rename(doomed)
    _remove(doomed)


def _digest(archive: Path, limits: Limits, copy: Path = Path(os.devnull)) -> str:
    """Of what is in the archive, and in `copy` then. Blocking. Raises `SandboxFailure` and `OSError`."""
    seen, left = hashlib.sha256(), limits.dependencies_bytes + MOST_FILES * _HEADER_BYTES
    with archive.open("rb") as file, copy.open("wb") as kept:
        while piece := file.read(1 << 20):
            left -= len(piece)
            if left < 0:
                raise _refused("the archive of the dependencies is larger than they may be")
            seen.update(piece)
            kept.write(piece)
    return seen.hexdigest()


def _refused(detail: str) -> SandboxFailure:
    return SandboxFailure(detail, reason="archive_refused", retryable=False)


def _size(root: Path) -> int:
    """Bytes on the disk."""
    size = 0
    for folder, _, files in os.walk(root):
        for name in files:
            with suppress(OSError):
                size += os.lstat(f"{folder}/{name}").st_blocks * 512
    return size


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
