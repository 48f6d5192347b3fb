"""Packs a person's working directory for upload: what git tracks or would add, as it is on the disk now."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from codeagent.artifacts.plain_tar import PlainTar
from codeagent.artifacts.uploads.limits import ArchiveLimits
from codeagent.artifacts.uploads.paths import stays_inside
from codeagent.errors import InvalidInput

_GIT_SECONDS = 120
_OTHER_REPOSITORY = frozenset(
    {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"}
)
"""Set inside git hooks; they would make git answer for another directory than the one asked about."""
_JUNK_DIRECTORIES = frozenset(
    {".git", ".hg", ".svn", "node_modules", "__pycache__", ".venv", "venv", ".tox", ".nox", ".eggs", ".gradle"}
    | {".mypy_cache", ".pytest_cache", ".ruff_cache", ".cache", ".terraform"}
)
_JUNK_FILES = (".git", ".DS_Store", "Thumbs.db", "*.pyc", "*.swp", "*~")


@dataclass(frozen=True, slots=True)
class Packed:
    """What is in the archive, and what was left out though it is there: links that lead outside, repositories
    inside the repository, names that are not UTF-8, sockets and the like. Both sorted, relative to the directory."""

    files: tuple[str, ...]
    skipped: tuple[str, ...]
    size_bytes: int


def pack_tracked(repository: Path, destination: Path) -> Packed:
    """Writes a .tar.gz of the directory `repository` to `destination`; the same files give the same bytes. Blocking.

    In a git work tree, these are the tracked files and those git would add, submodules included; elsewhere, all
    files but caches and installed dependencies. Links are packed as links and never followed. Raises `InvalidInput`
    if there is nothing to pack, git fails, or a file changes meanwhile; no `destination` remains then.
    """
    root = repository.resolve()
    if not root.is_dir():
        raise InvalidInput(f"{repository} is not a directory")
    in_git = any((folder / ".git").exists() for folder in (root, *root.parents))
    listing = _Listing(root, _git_names(root) if in_git else _all_names(root))
    if not listing.files:
        raise InvalidInput(f"there are no files to send in {repository}", code="archive_empty")
    try:
        with destination.open("wb") as raw:
            with PlainTar(raw) as archive:
                for name in listing.files:
                    _add(archive, root, name)
            size_bytes = raw.tell()
    except BaseException:
        destination.unlink(missing_ok=True)
        raise
    return Packed(files=tuple(listing.files), skipped=tuple(sorted(listing.skipped)), size_bytes=size_bytes)


class _Listing:
    """Sorts names into those to pack and those to leave out. What is no longer on the disk is neither."""

    def __init__(self, root: Path, names: Iterator[str]) -> None:
        self.files: list[str] = []
        self.skipped: set[str] = set()
        self._root = root
        self._plain_directories = {PurePosixPath("."): True}
        for name in sorted(set(names)):
            self._sort(name)

    def _sort(self, name: str) -> None:
        path = self._root / name
        try:
            mode = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return
        known = _is_utf8(name) and self._reached_plainly(PurePosixPath(name).parent)
        if stat.S_ISDIR(mode):
            self.skipped.add(name)  # git lists a directory only if it is a repository of its own
        elif known and (stat.S_ISREG(mode) or (stat.S_ISLNK(mode) and _leads_inside(self._root, name))):
            self.files.append(name)
        else:
            self.skipped.add(name.encode("utf-8", "replace").decode())

    def _reached_plainly(self, directory: PurePosixPath) -> bool:
        """Whether no part of the way is a link: a tracked directory may have been replaced by one."""
        if directory not in self._plain_directories:
            here = stat.S_ISDIR((self._root / directory).lstat().st_mode)
            self._plain_directories[directory] = here and self._reached_plainly(directory.parent)
        return self._plain_directories[directory]


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _leads_inside(root: Path, name: str) -> bool:
    """Whether a link may be sent as it is; one to a missing file may, one that goes in circles may not."""
    path = root / name
    target = str(path.readlink())
    if not _is_utf8(target) or not stays_inside(PurePosixPath(name).parts, target, ArchiveLimits()):
        return False
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError:
        return False
    return path.resolve().is_relative_to(root)


def _add(archive: PlainTar, root: Path, name: str) -> None:
    path = root / name
    try:
        if path.is_symlink():
            archive.link(name, str(path.readlink()))
            return
        # O_NONBLOCK and the check: what was a file a moment ago may be a FIFO now.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise InvalidInput(f"{name} changed while it was packed")
            archive.file(name, facts.st_size, file, executable=bool(facts.st_mode & 0o111))
    except OSError as error:
        raise InvalidInput(f"{name} cannot be packed: {error.strerror or error}") from error


def _git_names(directory: Path) -> Iterator[str]:
    """Tracked and untracked files, except ignored ones; a submodule's own, if it is checked out."""
    for name in _git_list(directory):
        path = directory / name
        if not name.endswith("/") and not path.is_symlink() and (path / ".git").exists():
            for below in _git_names(path):
                yield f"{name}/{below}"
        else:
            yield name.rstrip("/")


def _git_list(directory: Path) -> list[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    environment = {name: value for name, value in os.environ.items() if name not in _OTHER_REPOSITORY}
    try:
        done = subprocess.run(
            command, cwd=directory, env=environment, capture_output=True, timeout=_GIT_SECONDS, check=False
        )
    except FileNotFoundError:
        raise InvalidInput("git is needed to tell which files belong to this repository") from None
    except subprocess.TimeoutExpired:
        raise InvalidInput(f"git did not list the files within {_GIT_SECONDS} s") from None
    if done.returncode:
        raise InvalidInput(f"git cannot list the files: {done.stderr.decode(errors='replace').strip()}")
    return [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]


def _all_names(directory: Path) -> Iterator[str]:
    for folder, directories, files in os.walk(directory):
        links = [name for name in directories if (Path(folder) / name).is_symlink()]
        directories[:] = [name for name in directories if name not in _JUNK_DIRECTORIES and name not in links]
        for name in files + links:
            if not any(fnmatch(name, pattern) for pattern in _JUNK_FILES):
                yield (Path(folder) / name).relative_to(directory).as_posix()
