"""Images: root file systems that an operator has laid out for commands, which see them in place of the machine's /usr.

Nothing of an image is ever followed on the machine. Links are shown as they are and lead wherever they lead inside, and
what is copied is opened without following any.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from codeagent.sandboxes import beneath, rootfs
from codeagent.sandboxes.box import Bind, Link, Surroundings
from codeagent.sandboxes.engine import PINNED
from codeagent.sandboxes.protocol import SandboxUnavailable

PLACE = rf"/[^\x00]*|{PINNED}"
"""Where an image is: the path of a root file system, or what a container engine knows it by."""

NO_IMAGES: Mapping[str, str] = MappingProxyType({})

_OURS = frozenset(
    {
        *("base.git", "dependencies", "dev", "etc", "fetch", "home", "proc", "root", "run", "sys", "tmp", "var"),
        *("boot", "lost+found", "media", "mnt", "workspace"),
    }
)
"""Top-level names that are of the sandbox, or say nothing to a command."""

OWN_PROGRAMS = ("/usr/local/go/bin", "/usr/local/cargo/bin")
"""Where the toolchains' own images keep them, outside of the usual path."""
_RUSTUP_HOME = "/usr/local/rustup"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READABLE, _PASSABLE = 0o004, 0o005
_MOST_ETC_BYTES = 64 << 20


def unusable_roots(images: Mapping[str, str]) -> list[str]:
    """Why images cannot be shown as root file systems of this machine, with the remedies. Blocking."""
    return [f"image {name}: {fault}" for name, value in images.items() for fault in _faults(value)]


def unusable_references(images: Mapping[str, str]) -> list[str]:
    """Why images cannot be those of a container engine, as far as their names say."""
    return [
        f"image {name}: a container engine takes it pinned, NAME@sha256:... or sha256:..., not {value}"
        for name, value in images.items()
        if re.fullmatch(PINNED, value) is None
    ]


def _faults(value: str) -> Iterator[str]:
    path = Path(value)
    if not path.is_absolute():
        yield f"it has to be the absolute path of a root file system here, not {value}"
        return
    try:
        root = path.resolve(strict=True)
    except (OSError, RuntimeError):
        yield f"there is no directory {value}"
        return
    if not root.is_dir():
        yield f"{value} is not a directory"
        return
    for folder in (root, *root.parents):
        facts = folder.stat()
        if facts.st_uid not in (0, os.geteuid()):
            yield f"{folder} is not root's: chown root {folder}"
        # In a sticky directory nobody moves what is not his.
        if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not (facts.st_mode & stat.S_ISVTX and folder != root):
            yield f"others may write to {folder}: chmod go-w {folder}"
    barrier = rootfs.unreachable(root)
    if os.geteuid() == 0 and barrier is not None:
        yield f"slot users cannot reach it: chmod o+x {barrier}"
    if not os.path.lexists(root / "bin"):
        yield f"{value} is no root file system: it has no /bin"


def surroundings(
    machine: Surroundings, images: Mapping[str, str], directory: Path
) -> Iterator[tuple[str, Surroundings]]:
    """What sandboxes of each image see beside their workspace, by the image's name; `machine` is what the others see.

    Lays out below `directory`, an /etc for each. Blocking. Raises `SandboxUnavailable` and `OSError`.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    for name, value in images.items():
        root = Path(value).resolve(strict=True)
        etc = rootfs.write_own_etc(directory / name)
        _fill_etc(etc, root, name)
        environment = {**machine.environment, **_environment(root)}
        environment.pop("LD_LIBRARY_PATH", None)  # of our own Python, which is not shown
        yield name, replace(machine, top_level=_top_level(root), etc=etc, tools=(), environment=environment)


def _top_level(root: Path) -> tuple[Bind | Link, ...]:
    parts: list[Bind | Link] = []
    with os.scandir(root) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name in _OURS:
                continue
            if entry.is_symlink():
                parts.append(Link(str(Path(entry.path).readlink()), f"/{entry.name}"))
            elif entry.is_dir(follow_symlinks=False):
                parts.append(Bind(Path(entry.path), f"/{entry.name}"))
    return tuple(parts)


def _environment(root: Path) -> dict[str, str]:
    own = [path for path in OWN_PROGRAMS if beneath.is_directory(root, path.lstrip("/"))]
    variables = {"PATH": ":".join([*own, rootfs.PROGRAM_DIRECTORIES])}
    if beneath.is_directory(root, _RUSTUP_HOME.lstrip("/")):
        variables["RUSTUP_HOME"] = _RUSTUP_HOME
    return variables


def _fill_etc(etc: Path, root: Path, name: str) -> None:
    """Adds to our own /etc what the image has beside it: its linker's cache, alternatives, settings of toolchains."""
    try:
        handle = os.open(root / "etc", _DIRECTORY)
    except OSError:
        return  # none, or a link, which is not followed
    try:
        if _fill(etc, handle, _MOST_ETC_BYTES) < 0:
            raise SandboxUnavailable([f"image {name}: its /etc has more than {_MOST_ETC_BYTES >> 20} MiB"])
    finally:
        os.close(handle)


def _fill(target: Path, source: int, left: int) -> int:
    """Copies what everyone may read and `target` does not have yet. Returns how many bytes of `left` are left over,
    less than none where they do not suffice."""
    with os.scandir(source) as entries:
        for entry in entries:
            facts, into = entry.stat(follow_symlinks=False), target / entry.name
            if stat.S_ISDIR(facts.st_mode) and facts.st_mode & _PASSABLE == _PASSABLE:
                left = _fill_directory(into, source, entry.name, left)
            elif os.path.lexists(into):
                continue
            elif stat.S_ISLNK(facts.st_mode):
                into.symlink_to(os.readlink(entry.name, dir_fd=source))
            elif stat.S_ISREG(facts.st_mode) and facts.st_mode & _READABLE:
                left -= facts.st_size
                if left >= 0:
                    _copy(into, source, entry.name)
            if left < 0:
                break
    return left


def _fill_directory(into: Path, parent: int, name: str, left: int) -> int:
    if not os.path.lexists(into):
        into.mkdir(mode=0o755)
        into.chmod(0o755)
    elif not stat.S_ISDIR(into.lstat().st_mode):
        return left
    handle = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        return _fill(into, handle, left)
    finally:
        os.close(handle)


def _copy(into: Path, parent: int, name: str) -> None:
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    with os.fdopen(handle, "rb") as source, into.open("xb") as target:
        shutil.copyfileobj(source, target)
        mode = os.fstat(handle).st_mode
    into.chmod(0o755 if mode & 0o111 else 0o644)
