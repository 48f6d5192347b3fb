"""Files below a directory somebody hostile may be writing to: every component is opened without following links."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from codeagent.sandboxes.protocol import SandboxFailure

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_SUCH = (errno.ENOENT,)
_WRONG_KIND = (errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EMLINK, errno.ENXIO)  # the last: sockets, devices
_FULL = (errno.ENOSPC, errno.EDQUOT)


def components(path: str) -> tuple[str, ...]:
    """The parts of a relative path; `.` and empty parts vanish. Raises `SandboxFailure` (`bad_path`)."""
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        raise _failure("bad_path", "the path cannot be encoded") from None
    if not path or b"\0" in encoded or path.startswith("/") or len(encoded) > 4000:
        raise _failure("bad_path", "the path must be relative, without NUL bytes and of at most 4000 bytes")
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if ".." in parts or any(len(os.fsencode(part)) > 255 for part in parts):
        raise _failure("bad_path", "the path may not contain '..' or a name of more than 255 bytes")
    return parts


def _failure(reason: str, detail: str) -> SandboxFailure:
    return SandboxFailure(detail, reason=reason, retryable=False)


@contextmanager
def explained() -> Iterator[None]:
    """Turns what the kernel says about a path into the reasons of the driver protocol."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SUCH:
            raise _failure("no_such_file", "there is no such file") from None
        if error.errno in _WRONG_KIND:
            raise _failure("not_a_file", "the path does not lead to a regular file through plain directories") from None
        if error.errno in _FULL:
            raise _failure("workspace_full", "the workspace is full") from None
        if error.errno == errno.ENAMETOOLONG:
            raise _failure("bad_path", "the path is too long") from None
        raise SandboxFailure(f"file access failed: {os.strerror(error.errno or 0)}") from error


@contextmanager
def directory(root: Path, parts: tuple[str, ...], *, owner: int | None = None) -> Iterator[int]:
    """A descriptor of root/parts. With `owner`, missing directories are made for that uid. Raises `OSError`."""
    current = os.open(root, _DIRECTORY)
    try:
        for part in parts:
            following = step(current, part, owner)
            os.close(current)
            current = following
        yield current
    finally:
        os.close(current)


def step(parent: int, name: str, owner: int | None) -> int:
    """A descriptor of the directory `name` in `parent`, made for `owner` if it is missing. The caller closes it."""
    made = owner is not None and _make_directory(name, parent)
    handle = os.open(name, _DIRECTORY, dir_fd=parent)
    if made and owner is not None:
        # By descriptor: a program inside could have put a link where the new directory was.
        os.fchown(handle, owner, owner)
        os.fchmod(handle, 0o755)
    return handle


def _make_directory(name: str, parent: int) -> bool:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return False
    return True


def is_directory(root: Path, path: str) -> bool:
    """Whether `path` is a directory below `root`, reached without links. Raises `SandboxFailure` (`bad_path`)."""
    parts = components(path)
    try:
        with directory(root, parts):
            return True
    except OSError:
        return False


def read(root: Path, path: str, limit_bytes: int) -> bytes:
    """The bytes of a regular file. Raises `SandboxFailure`."""
    parts = components(path)
    if not parts:
        raise _failure("not_a_file", "the path names the workspace itself")
    with explained(), directory(root, parts[:-1]) as parent:
        # O_NONBLOCK: opening a FIFO for reading must not wait for a writer.
        handle = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        with os.fdopen(handle, "rb", buffering=0) as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise _failure("not_a_file", "the path is not a regular file")
            if facts.st_size > limit_bytes:
                raise _failure("too_large", f"the file has {facts.st_size} bytes, {limit_bytes} are allowed")
            data = _read_all(file.fileno(), limit_bytes + 1)
    if len(data) > limit_bytes:
        raise _failure("too_large", f"the file has more than {limit_bytes} bytes")
    return data


def _read_all(handle: int, limit_bytes: int) -> bytes:
    pieces, left = [], limit_bytes
    while left > 0 and (piece := os.read(handle, min(left, 1 << 20))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def write(root: Path, path: str, data: bytes, owner: int) -> None:
    """Creates or replaces a regular file, atomically, for the uid `owner`. Raises `SandboxFailure`."""
    parts = components(path)
    if not parts:
        raise _failure("not_a_file", "the path names the workspace itself")
    with explained(), directory(root, parts[:-1], owner=owner) as parent:
        mode = _replaceable_mode(parts[-1], parent)
        temporary = f".{secrets.token_hex(8)}.writing"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=parent)
        try:
            with os.fdopen(handle, "wb", buffering=0) as file:
                write_all(file.fileno(), data)
                os.fchown(file.fileno(), owner, owner)
                os.fchmod(file.fileno(), mode)
            os.rename(temporary, parts[-1], src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)
            raise


def _replaceable_mode(name: str, parent: int) -> int:
    """Permission bits the new file gets: those of the file it replaces. A link is refused, not replaced."""
    try:
        facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return 0o644
    if not stat.S_ISREG(facts.st_mode):
        raise _failure("not_a_file", "the path is not a regular file")
    return stat.S_IMODE(facts.st_mode) & 0o777


def write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
