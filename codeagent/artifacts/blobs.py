"""Content-addressed files below one directory: `<tenant>/sha256/ab/<hex>`, each complete and durable or absent."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from urllib.parse import unquote_to_bytes

from codeagent import clock
from codeagent.artifacts.disk import FILE_MODE, explained, make_directory, sync_directory
from codeagent.errors import InvalidInput, NotFound, Rejected

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")
_LONGEST_FOLDER = 200
_INCOMING = ".incoming"
_ABANDONED_SECONDS = 3600.0
_DOOMED = "doomed-"
_HEX_DIGITS = 64
_NEW_SECONDS = 3600.0
"""So old an artifact may look and still be new: not every question has to be written down."""
_COPY_BYTES = 1 << 20


def digest_of(data: bytes) -> str:
    """`sha256:` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def folder_of(tenant_id: str) -> str:
    """One path component a tenant, on any file system: everything but a-z, 0-9, `_` and `-` is percent-encoded.

    Raises `InvalidInput` for an id that is empty or too long for a name.
    """
    raw = tenant_id.encode("utf-8", "surrogatepass")
    folder = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in raw)
    if not folder or len(folder) > _LONGEST_FOLDER:
        raise InvalidInput("a tenant id must have between 1 and about 200 characters")
    return folder


class Incoming:
    """A file on its way in, hashed as it is written. Blocking; used by one thread at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: FileIO | None = None
        self._path: Path | None = None
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Makes the file if this is the first of it. Raises `OSError`."""
        file = self._opened()
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        self._hash.update(data)
        self.size += len(data)

    def _opened(self) -> FileIO:
        if self._file is None:
            make_directory(self._directory)
            handle, name = tempfile.mkstemp(dir=self._directory)
            self._path = Path(name)
            self._file = FileIO(handle, "wb")
        return self._file

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def settle(self, final: Path) -> None:
        """Gives the file its name. Raises `OSError`."""
        with self._opened() as file:
            if self._path is not None:
                _settle(file, self._path, final)
        self._path = None

    def discard(self) -> None:
        """Leaves nothing behind, unless the file is settled."""
        if self._file is not None:
            self._file.close()
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()


class BlobFiles:
    """The files of all tenants. Blocking; safe to use from several threads and processes at once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def prepare(self) -> int:
        """Makes the directory and removes what killed writers left more than an hour ago; returns how many."""
        with explained():
            make_directory(self._root / _INCOMING)
            latest = clock.now().timestamp() - _ABANDONED_SECONDS
            removed = 0
            with os.scandir(self._root / _INCOMING) as leftovers:
                for leftover in leftovers:
                    # Another process may finish or sweep it at this very moment.
                    with suppress(FileNotFoundError):
                        if leftover.stat(follow_symlinks=False).st_mtime < latest:
                            Path(leftover.path).unlink()
                            removed += 1
        return removed

    def location(self, tenant_id: str, digest: str) -> Path:
        """Where the file is or would be. Raises `NotFound` for what is not a digest: it names nothing."""
        found = _DIGEST.fullmatch(digest)
        if found is None:
            raise NotFound("no such artifact")
        return self._root / folder_of(tenant_id) / "sha256" / found[1][:2] / found[1]

    def incoming(self, tenant_id: str) -> Incoming:
        """Touches no disk yet. Raises `InvalidInput` before a single byte is received for an impossible tenant."""
        folder_of(tenant_id)
        return Incoming(self._root / _INCOMING)

    def put(self, tenant_id: str, data: bytes) -> str:
        digest = digest_of(data)
        final = self.location(tenant_id, digest)
        with explained(), self._discarding(tenant_id) as incoming:
            if _holds(final, data) and _touched(final):
                # Whoever wrote it may not have come to this yet, and we promise that it stays.
                sync_directory(final.parent)
                return digest
            incoming.write(data)
            incoming.settle(final)
        return digest

    def put_file(self, tenant_id: str, path: Path) -> tuple[str, int]:
        folder_of(tenant_id)
        with _regular(path) as source, explained():
            make_directory(self._root)
            if _may_move(source, self._root):
                return self._move(tenant_id, source, path)
            with self._discarding(tenant_id) as incoming:
                while piece := source.read(_COPY_BYTES):
                    incoming.write(piece)
                incoming.settle(self.location(tenant_id, incoming.digest))
                path.unlink(missing_ok=True)
            return incoming.digest, incoming.size

    def _move(self, tenant_id: str, source: FileIO, path: Path) -> tuple[str, int]:
        digest = f"sha256:{hashlib.file_digest(source, 'sha256').hexdigest()}"
        size = source.tell()
        _settle(source, path, self.location(tenant_id, digest))
        return digest, size

    def receive(self, incoming: Incoming, data: bytes) -> None:
        with explained():
            incoming.write(data)

    def settle(self, tenant_id: str, incoming: Incoming) -> tuple[str, int]:
        with explained():
            incoming.settle(self.location(tenant_id, incoming.digest))
        return incoming.digest, incoming.size

    def size(self, tenant_id: str, digest: str) -> int | None:
        """Who asks is about to name it: from now on it is as good as new."""
        with explained():
            try:
                path = self.location(tenant_id, digest)
                facts = path.lstat()
                if facts.st_mtime < time.time() - _NEW_SECONDS:
                    os.utime(path)
                return facts.st_size
            except (FileNotFoundError, NotFound):
                return None

    def shelves(self) -> Iterator[tuple[str, str]]:
        """(tenant, first two digits) of every directory that artifacts are in."""
        for folder in _names(self._root):
            if folder != _INCOMING:
                tenant_id = unquote_to_bytes(folder).decode("utf-8", "surrogatepass")
                for prefix in _names(self._root / folder / "sha256"):
                    yield tenant_id, prefix

    def older_than(self, tenant_id: str, prefix: str, latest: float) -> list[str]:
        """Digests of what was last stored or asked for before `latest`, in seconds since the epoch."""
        found = []
        with explained(), suppress(FileNotFoundError):
            for entry in os.scandir(self._root / folder_of(tenant_id) / "sha256" / prefix):
                with suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime < latest and len(entry.name) == _HEX_DIGITS:
                        found.append(f"sha256:{entry.name}")
        return found

    def remove_if_older(self, tenant_id: str, digest: str, latest: float) -> bool:
        """Takes the artifact away, unless somebody has stored it or asked for it since."""
        path = self.location(tenant_id, digest)
        aside = self._root / _INCOMING / f"{_DOOMED}{secrets.token_hex(8)}"
        with explained():
            try:
                make_directory(aside.parent)
                path.rename(aside)
            except FileNotFoundError:
                return False
            # Under its old name it could have been touched between the look and the end. Now nobody finds it.
            if aside.lstat().st_mtime >= latest:
                with suppress(FileExistsError):
                    os.link(aside, path)
                aside.unlink()
                return False
            aside.unlink()
            return True

    def read(self, tenant_id: str, digest: str, limit_bytes: int | None) -> bytes:
        with self._opened(tenant_id, digest) as file:
            size = os.fstat(file.fileno()).st_size
            if limit_bytes is not None and size > limit_bytes:
                raise Rejected(
                    f"the artifact has {size} bytes, {limit_bytes} are allowed", code="payload_too_large", status=413
                )
            return file.read()

    def read_at(self, tenant_id: str, digest: str, offset: int, count: int) -> bytes:
        """Up to `count` bytes. The file is not kept open: a slow reader holds no descriptor."""
        with self._opened(tenant_id, digest) as file:
            return os.pread(file.fileno(), count, offset)

    @contextmanager
    def _discarding(self, tenant_id: str) -> Iterator[Incoming]:
        incoming = self.incoming(tenant_id)
        try:
            yield incoming
        finally:
            incoming.discard()

    @contextmanager
    def _opened(self, tenant_id: str, digest: str) -> Iterator[FileIO]:
        path = self.location(tenant_id, digest)
        with explained():
            try:
                handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                raise NotFound("no such artifact") from None
            with FileIO(handle, "rb") as file:
                yield file


def _holds(path: Path, data: bytes) -> bool:
    """Whether exactly these bytes are there; a damaged file is not, so that putting it again heals it."""
    try:
        return path.lstat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False


def _touched(path: Path) -> bool:
    """Whether it is there, and as good as new."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _names(directory: Path) -> list[str]:
    with explained(), suppress(FileNotFoundError, NotADirectoryError):
        return sorted(entry.name for entry in directory.iterdir())
    return []


def _regular(path: Path) -> FileIO:
    """Opens without waiting for a FIFO's writer or following a link: a sandbox may have put it there."""
    file = FileIO(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError("only a regular file can be put into the store")
    return file


def _may_move(source: FileIO, root: Path) -> bool:
    """A file that someone else owns, or knows by another name, could still be changed after it was hashed."""
    facts = os.fstat(source.fileno())
    return facts.st_dev == root.stat().st_dev and facts.st_nlink == 1 and facts.st_uid == os.geteuid()


def _settle(file: FileIO, path: Path, final: Path) -> None:
    """Names a file by its content. It is on the disk before it has the name, and so is the name on return."""
    os.fchmod(file.fileno(), FILE_MODE)
    os.utime(file.fileno())
    os.fsync(file.fileno())
    make_directory(final.parent)
    path.replace(final)
    sync_directory(final.parent)
