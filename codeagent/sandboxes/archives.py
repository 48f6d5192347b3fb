"""Plain .tar.gz trees: checked while they are read, unpacked without following anything, packed the same way twice."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from codeagent.sandboxes import beneath
from codeagent.sandboxes.protocol import Limits, SandboxFailure

_LONGEST_HEADER_BYTES = 64 << 10
_COPY_BYTES = 1 << 20
_LONGEST_FOLDER_BYTES = 3_700
"""Any name in it is then still within what can be unpacked."""


class Content:
    """The bytes of a regular file, readable while its archive is at it. Raises `SandboxFailure` if it is damaged."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source

    def read(self, size: int = -1) -> bytes:
        with _explained():
            return self._source.read(size)


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of a tree: a directory, a symbolic link (`target`) or a regular file (`size` bytes of `content`)."""

    path: str
    is_directory: bool = False
    executable: bool = False
    size: int = 0
    target: str = ""
    content: Content | None = None


class _Member(tarfile.TarInfo):
    """Refuses extension headers large enough to exhaust memory before the member itself is even seen."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo | None:
        plain = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE)
        if self.type not in plain and self.size > _LONGEST_HEADER_BYTES:
            raise tarfile.ReadError("oversized extension header")
        return super()._proc_member(tar)  # type: ignore[misc, no-any-return]


def _refused(detail: str) -> SandboxFailure:
    return SandboxFailure(detail, reason="archive_refused", retryable=False)


Link = Callable[[tuple[str, ...], str], str | None]
"""What a link of these parts may read in the place of its target; `None` where it may not be."""


def entries(archive: Path, limits: Limits, link: Link | None = None) -> Iterator[Entry]:
    """The members of `archive` in order, each checked. `content` is readable until the next step.

    Anything with a `.git` component is left out. Raises `SandboxFailure` (`archive_refused`) for absolute paths,
    `..`, links that lead outside, hard links, devices, and more bytes or members than `limits` allow.
    """
    seen_bytes = 0
    with _explained(), gzip.open(archive, "rb") as raw, tarfile.open(fileobj=raw, mode="r|", tarinfo=_Member) as tar:
        for count, member in enumerate(tar, start=1):
            seen_bytes += member.size if member.isreg() else 0
            if seen_bytes > limits.workspace_bytes or count > limits.workspace_inodes:
                raise _refused("the archive holds more than the workspace may")
            entry = _checked(member, link or inside)
            if entry is not None:
                content = tar.extractfile(member) if member.isreg() else None
                yield entry if content is None else replace(entry, content=Content(content))


@contextmanager
def _explained() -> Iterator[None]:
    """Turns what the readers of both formats raise about damage into a refusal."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, UnicodeError, gzip.BadGzipFile) as error:
        raise _refused(f"the archive cannot be read: {type(error).__name__}") from error


def _checked(member: tarfile.TarInfo, link: Link) -> Entry | None:
    try:
        parts = beneath.components(member.name)
    except SandboxFailure:
        raise _refused("the archive contains a path that leads outside or cannot be named") from None
    if not parts or any(part.lower() == ".git" for part in parts):
        return None
    path = "/".join(parts)
    if member.isdir():
        return Entry(path, is_directory=True)
    if member.issym():
        target = link(parts, member.linkname)
        if target is None:
            raise _refused(f"the archive contains a link that leads outside: {path!a}")
        return Entry(path, target=target)
    if not member.isreg() or member.issparse():
        raise _refused(f"the archive contains something else than files, directories and links: {path!a}")
    return Entry(path, executable=bool(member.mode & 0o111), size=member.size)


def stays_inside(parts: tuple[str, ...], target: str) -> bool:
    """Whether a link at `parts` pointing to `target` stays in the tree, read as text."""
    if not target or target.startswith("/") or "\0" in target or len(os.fsencode(target)) > 4000:
        return False
    depth = len(parts) - 1
    for part in target.split("/"):
        depth += -1 if part == ".." else 0 if part in ("", ".") else 1
        if depth < 0:
            return False
    return True


def inside(parts: tuple[str, ...], target: str) -> str | None:
    """See `Link`: of archives whose links stay in them."""
    return target if stays_inside(parts, target) else None


class Unpacker:
    """Writes a checked archive below a directory nobody else is writing to yet."""

    def __init__(self, root: Path, owner: int, link: Link = inside) -> None:
        self._root = root
        self._owner = owner
        self._link = link

    def unpack(self, archive: Path, limits: Limits, canceled: threading.Event) -> None:
        """Blocking. Files get the time of now: the diff relies on it. Raises `SandboxFailure`."""
        for entry in entries(archive, limits, self._link):
            if canceled.is_set():
                raise SandboxFailure("unpacking was canceled", reason="canceled")
            self._place(entry)

    def _place(self, entry: Entry) -> None:
        *folders, name = entry.path.split("/")
        with beneath.explained(), beneath.directory(self._root, tuple(folders), owner=self._owner) as parent:
            if entry.is_directory:
                os.close(beneath.step(parent, name, self._owner))
                return
            with _replaced(name, parent):
                if entry.target:
                    os.symlink(entry.target, name, dir_fd=parent)
                    os.chown(name, self._owner, self._owner, dir_fd=parent, follow_symlinks=False)
                else:
                    self._write(entry, name, parent)

    def _write(self, entry: Entry, name: str, parent: int) -> None:
        handle = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent
        )
        with os.fdopen(handle, "wb", buffering=0) as file:
            if entry.content is not None:
                _copy(entry.content, lambda piece: beneath.write_all(file.fileno(), piece))
            os.fchown(file.fileno(), self._owner, self._owner)
            os.fchmod(file.fileno(), 0o755 if entry.executable else 0o644)


@contextmanager
def _replaced(name: str, parent: int) -> Iterator[None]:
    """A later member of the same name wins, as with tar; a directory is never replaced."""
    try:
        facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        yield
        return
    if stat.S_ISDIR(facts.st_mode):
        raise _refused("the archive replaces a directory by a file")
    os.unlink(name, dir_fd=parent)
    yield


def _copy(source: Content, write: Callable[[bytes], object]) -> None:
    while piece := source.read(_COPY_BYTES):
        write(piece)


def pack(root: Path, destination: Path, limits: Limits, link: Link = inside, deepest: int | None = None) -> None:
    """Blocking. Writes the tree below `root` as a plain .tar.gz: sorted, without `.git`, owners, times, or anything
    but files, directories and links that stay inside, or as `link` says. Raises `SandboxFailure` (`too_large`)."""
    budget = _Budget(limits, deepest)
    with _writing(destination) as tar:
        pending: list[tuple[str, ...]] = [()]
        while pending:
            pending += reversed(_pack_directory(tar, root, pending.pop(), budget, link))


def pack_files(files: Mapping[str, bytes], destination: Path, limits: Limits) -> None:
    """Blocking. As `pack`, for files held in memory."""
    budget = _Budget(limits)
    with _writing(destination) as tar:
        for path, data in sorted(files.items()):
            budget.spend(len(data))
            header = tarfile.TarInfo(path)
            header.size, header.mode = len(data), 0o644
            tar.addfile(header, io.BytesIO(data))


@contextmanager
def _writing(destination: Path) -> Iterator[tarfile.TarFile]:
    with (
        destination.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=1) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        yield tar


class _Budget:
    def __init__(self, limits: Limits, deepest: int | None = None) -> None:
        self._bytes = limits.workspace_bytes
        self._inodes = limits.workspace_inodes
        self._deepest = deepest

    def enter(self, parts: tuple[str, ...]) -> None:
        """Each directory is reached from the top: what is nested without end takes time without end."""
        if self._deepest is None:
            return
        if len(parts) > self._deepest or sum(len(os.fsencode(part)) + 1 for part in parts) > _LONGEST_FOLDER_BYTES:
            raise SandboxFailure("the directory is nested too deeply", reason="too_large", retryable=False)

    def spend(self, size: int) -> None:
        self._bytes -= size
        self._inodes -= 1
        if self._bytes < 0 or self._inodes < 0:
            raise SandboxFailure("the directory holds more than the workspace may", reason="too_large", retryable=False)


def _pack_directory(
    tar: tarfile.TarFile, root: Path, parts: tuple[str, ...], budget: _Budget, link: Link
) -> list[tuple[str, ...]]:
    """Adds what lies directly in root/parts; returns the directories found, which are still to be entered."""
    budget.enter(parts)
    found = []
    with beneath.directory(root, parts) as here:
        for name in sorted(os.listdir(here)):  # noqa: PTH208  # a descriptor
            if name.lower() == ".git":
                continue
            facts = os.stat(name, dir_fd=here, follow_symlinks=False)
            below = (*parts, name)
            header = tarfile.TarInfo("/".join(below))
            if stat.S_ISDIR(facts.st_mode):
                budget.spend(0)
                header.type, header.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(header)
                found.append(below)
            elif stat.S_ISLNK(facts.st_mode):
                target = link(below, os.readlink(name, dir_fd=here))
                if target is not None:
                    header.type, header.linkname = tarfile.SYMTYPE, target
                    budget.spend(0)
                    tar.addfile(header)
            elif stat.S_ISREG(facts.st_mode):
                _pack_file(tar, header, here, name, budget)
    return found


def _pack_file(tar: tarfile.TarFile, header: tarfile.TarInfo, parent: int, name: str, budget: _Budget) -> None:
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    with os.fdopen(handle, "rb") as file:
        facts = os.fstat(file.fileno())
        header.size = facts.st_size
        header.mode = 0o755 if facts.st_mode & 0o111 else 0o644
        budget.spend(header.size)
        tar.addfile(header, file)
