"""Does one thing in a container of a pod. Its input: the length of a JSON request in eight hexadecimal digits, the
request, and what the request itself reads. Where a file access fails, it prints its errno and exits 3."""

from __future__ import annotations

import json
import os
import resource
import secrets
import stat
import sys
import tarfile
from pathlib import Path
from typing import IO, Any, cast

WORKSPACE = "/workspace"
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def taken(count: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < count:
        piece = os.read(0, min(count - len(pieces), 1 << 20))
        if not piece:
            sys.exit(4)
        pieces += piece
    return bytes(pieces)


def folder(parts: list[str], make: bool) -> int:
    current = os.open(WORKSPACE, FOLDER)
    for part in parts:
        if make:
            try:
                os.mkdir(part, 0o755, dir_fd=current)
            except FileExistsError:
                pass
        below = os.open(part, FOLDER, dir_fd=current)
        os.close(current)
        current = below
    return current


def run(told: dict[str, Any]) -> None:
    for kind, value in told["rlimits"].items():
        number = getattr(resource, "RLIMIT_" + kind)
        hard = resource.getrlimit(number)[1]
        soft, most = (x if hard == resource.RLIM_INFINITY else min(x, hard) for x in value)
        resource.setrlimit(number, (soft, most))
    os.fchdir(folder(told["cwd"], False))
    os.environ.clear()
    os.environ.update(told["env"])
    try:
        os.execvpe(told["argv"][0], told["argv"], told["env"])  # noqa: S606
    except PermissionError as error:
        print(f"{told['argv'][0]}: {error.strerror}", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(126)
    except OSError as error:
        print(f"{told['argv'][0]}: {error.strerror}", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(127)


def check(told: dict[str, Any]) -> None:
    os.close(folder(told["path"], False))


def read(told: dict[str, Any]) -> None:
    *parents, name = told["path"]
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder(parents, False))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise IsADirectoryError(21, "")
    left = told["limit"] + 1
    while left > 0 and (piece := os.read(handle, min(left, 1 << 20))):
        sys.stdout.buffer.write(piece)
        left -= len(piece)


def write(told: dict[str, Any]) -> None:
    *parents, name = told["path"]
    content = taken(told["size"])
    parent = folder(parents, True)
    mode = 0o644
    try:
        facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISREG(facts.st_mode):
            raise IsADirectoryError(21, "")
        mode = stat.S_IMODE(facts.st_mode) & 0o777
    except FileNotFoundError:
        pass
    temporary = f".{secrets.token_hex(8)}.writing"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        os.unlink(temporary, dir_fd=parent)
        raise


class Part:
    """The next bytes of the input, as a file to read once."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, count: int) -> bytes:
        piece = taken(min(count, self.left))
        self.left -= len(piece)
        return piece


def fill(told: dict[str, Any]) -> None:
    """Unpacks two archives that the driver has made itself: the workspace's files, the repository's."""
    for size, root in zip(told["sizes"], (WORKSPACE, "/base.git"), strict=True):
        part = Part(size)
        with tarfile.open(fileobj=cast("IO[bytes]", part), mode="r|gz") as tar:
            for member in tar:
                member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
                tar.extract(member, root, numeric_owner=True)
                if member.isreg():
                    # The time of now: the difference relies on it.
                    os.utime(Path(root, member.name), follow_symlinks=False)
        part.read(part.left)


def main() -> None:
    told = json.loads(taken(int(taken(8), 16)))
    os.umask(0o022)
    try:
        {"run": run, "check": check, "read": read, "write": write, "fill": fill}[told["do"]](told)
    except OSError as error:
        print(error.errno, file=sys.stderr, flush=True)  # noqa: T201
        sys.exit(3)


main()
