"""The terminal sends what git would: tracked and new files as they are on the disk, nothing ignored, nothing outside."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from codeagent.artifacts.archive import ArchiveLimits, normalise
from codeagent.cli.pack import Packed, pack_tracked
from codeagent.errors import InvalidInput
from tests.conftest import unavailable

IDENTITY = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "protocol.file.allow=always"]


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *IDENTITY, "-C", str(folder), *arguments], check=True, capture_output=True)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory no repository is around."""
    if any((parent / ".git").exists() for parent in tmp_path.parents):
        unavailable("a temporary folder outside of git")
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def repository(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if shutil.which("git") is None:
        unavailable("git")
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    git(folder, "init", "-q")
    return folder


@pytest.fixture
def pack(tmp_path: Path) -> Callable[[Path], tuple[Packed, dict[str, tarfile.TarInfo], bytes]]:
    def packed(directory: Path) -> tuple[Packed, dict[str, tarfile.TarInfo], bytes]:
        destination = tmp_path / "packed.tar.gz"
        summary = pack_tracked(directory, destination)
        data = destination.read_bytes()
        assert summary.size_bytes == len(data)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            infos = {info.name: info for info in tar.getmembers()}
        assert tuple(infos) == summary.files == tuple(sorted(summary.files))
        return summary, infos, data

    return packed


Pack = Callable[[Path], tuple[Packed, dict[str, tarfile.TarInfo], bytes]]


def test_tracked_and_new_files_are_sent_and_ignored_ones_are_not(repository: Path, pack: Pack) -> None:
    write(
        repository,
        {
            ".gitignore": "*.log\nbuild/\n",
            "tracked.py": "1",
            "new/file.py": "2",
            "x.log": "3",
            "build/out": "4",
            "ü.py": "5",
        },
    )
    git(repository, "add", "tracked.py")

    assert pack(repository)[0].files == (".gitignore", "new/file.py", "tracked.py", "ü.py")


def test_files_are_sent_as_they_are_on_the_disk(repository: Path, pack: Pack) -> None:
    write(repository, {"changed": "old", "deleted": "gone", "ignored-but-tracked.log": "kept"})
    git(repository, "add", ".")
    write(repository, {"changed": "new", ".gitignore": "*.log"})
    (repository / "deleted").unlink()

    summary, _, data = pack(repository)

    assert summary.files == (".gitignore", "changed", "ignored-but-tracked.log")
    assert summary.skipped == ()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        content = tar.extractfile("changed")
        assert content is not None
        assert content.read() == b"new"


def test_a_directory_of_a_repository_is_sent_without_the_rest(repository: Path, pack: Pack) -> None:
    write(repository, {"outside": "1", "part/inside": "2", ".gitignore": "*.log", "part/x.log": ""})

    assert pack(repository / "part")[0].files == ("inside",)


def test_executable_bits_survive_and_nothing_else_does(repository: Path, pack: Pack) -> None:
    write(repository, {"run.sh": "", "plain": ""})
    (repository / "run.sh").chmod(0o700)
    (repository / "plain").chmod(0o600)

    infos = pack(repository)[1]

    assert {name: info.mode for name, info in infos.items()} == {"plain": 0o644, "run.sh": 0o755}
    assert {(info.uid, info.gid, info.mtime, info.uname) for info in infos.values()} == {(0, 0, 0, "")}


def test_the_same_files_give_the_same_bytes(repository: Path, pack: Pack, tmp_path: Path) -> None:
    write(repository, {"b": "2", "a": "1", "c/d": "3"})
    (repository / "link").symlink_to("a")
    first = pack(repository)[2]
    git(repository, "add", ".")
    os.utime(repository / "a", (1, 1))
    shutil.copytree(repository, tmp_path / "copy", symlinks=True)

    assert pack(repository)[2] == pack(tmp_path / "copy")[2] == first


def test_links_are_sent_as_links_and_only_if_they_stay_inside(repository: Path, pack: Pack, tmp_path: Path) -> None:
    write(tmp_path, {"secret": "outside"})
    write(repository, {"a/file": ""})
    for name, target in {
        "inside": "a/file",
        "folder": "a",
        "dangling": "missing",
        "a/up": "..",
        "absolute": str(repository / "a/file"),
        "outside": "../secret",
        "through": "a/up/../secret",
        "loop": "loop",
    }.items():
        (repository / name).symlink_to(target)

    summary, infos, _ = pack(repository)

    assert summary.files == ("a/file", "a/up", "dangling", "folder", "inside")
    assert summary.skipped == ("absolute", "loop", "outside", "through")
    assert infos["folder"].issym()


def test_a_tracked_directory_replaced_by_a_link_is_not_followed(repository: Path, pack: Pack, tmp_path: Path) -> None:
    write(tmp_path, {"elsewhere/file": "outside"})
    write(repository, {"folder/file": "inside", "other": ""})
    git(repository, "add", ".")
    shutil.rmtree(repository / "folder")
    (repository / "folder").symlink_to(tmp_path / "elsewhere")

    summary, _, _ = pack(repository)

    assert summary.files == ("other",)
    assert summary.skipped == ("folder", "folder/file")


def test_submodules_are_sent_and_unrelated_repositories_inside_are_not(
    repository: Path, pack: Pack, tmp_path: Path
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    git(library, "init", "-q")
    write(library, {"lib.py": "", "junk.log": "", ".gitignore": "*.log"})
    git(library, "add", ".")
    git(library, "commit", "-qm", "m")
    git(repository, "submodule", "--quiet", "add", str(library), "vendor/lib")
    write(repository, {"vendor/lib/junk.log": ""})
    shutil.copytree(library, repository / "nested")
    (repository / "linked").symlink_to("vendor/lib")

    summary, _, _ = pack(repository)

    assert summary.files == (".gitmodules", "linked", "vendor/lib/.gitignore", "vendor/lib/lib.py")
    assert summary.skipped == ("nested",)


def test_git_answers_for_this_directory_whatever_hook_it_runs_in(
    repository: Path, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(repository, {"here": ""})
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "other" / "index"))

    assert pack(repository)[0].files == ("here",)


def test_a_conflict_does_not_send_a_file_twice(repository: Path, pack: Pack) -> None:
    write(repository, {"file": "base"})
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "base")
    git(repository, "checkout", "-qb", "other")
    write(repository, {"file": "other"})
    git(repository, "commit", "-qam", "other")
    git(repository, "checkout", "-q", "-")
    write(repository, {"file": "mine"})
    git(repository, "commit", "-qam", "mine")
    with pytest.raises(subprocess.CalledProcessError):
        git(repository, "merge", "other")

    assert pack(repository)[0].files == ("file",)


def test_a_repository_is_never_sent_whole_because_git_is_missing(
    repository: Path, pack: Pack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(repository, {".gitignore": ".env", ".env": "SECRET=1"})
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))

    with pytest.raises(InvalidInput, match="git is needed"):
        pack(repository)


def test_a_broken_repository_is_an_error_that_says_what_git_said(repository: Path, pack: Pack, tmp_path: Path) -> None:
    write(repository, {"file": ""})
    (repository / ".git" / "HEAD").unlink()

    with pytest.raises(InvalidInput, match="not a git repository"):
        pack(repository)
    assert not (tmp_path / "packed.tar.gz").exists()


def test_without_git_everything_but_junk_is_sent(folder: Path, pack: Pack) -> None:
    write(
        folder,
        {
            "main.py": "",
            "pkg/mod.py": "",
            ".config/x": "",
            "node_modules/dep/index.js": "",
            "pkg/__pycache__/mod.cpython-311.pyc": "",
            ".venv/bin/python": "",
            "pkg/.DS_Store": "",
            "stale.pyc": "",
            "nested/.git/config": "",
            "nested/code.py": "",
        },
    )
    (folder / "linked").symlink_to("pkg")

    assert pack(folder)[0].files == (".config/x", "linked", "main.py", "nested/code.py", "pkg/mod.py")


def test_what_is_no_file_or_has_no_proper_name_is_left_out(folder: Path, pack: Pack) -> None:
    write(folder, {"file": ""})
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(folder / "socket"))
        try:
            (folder / os.fsdecode(b"caf\xe9")).write_text("")
        except OSError:
            unavailable("a file system that takes any bytes for a name")

        summary, _, _ = pack(folder)

    assert summary.files == ("file",)
    assert summary.skipped == ("caf?", "fifo", "socket")


@pytest.mark.parametrize("files", [{}, {"node_modules/x": ""}])
def test_nothing_to_send_is_an_error(folder: Path, pack: Pack, tmp_path: Path, files: dict[str, str]) -> None:
    write(folder, files)

    with pytest.raises(InvalidInput) as refusal:
        pack(folder)

    assert refusal.value.code == "archive_empty"
    assert not (tmp_path / "packed.tar.gz").exists()


def test_what_is_no_directory_is_an_error(folder: Path, pack: Pack) -> None:
    with pytest.raises(InvalidInput, match="not a directory"):
        pack(folder / "missing")


def test_an_unreadable_file_is_an_error_and_leaves_no_archive(
    folder: Path, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, {"a": "1", "b": "2"})
    real = os.open

    def refusing(path: Path, flags: int, *rest: int) -> int:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(InvalidInput, match="b cannot be packed: Permission denied"):
        pack(folder)
    monkeypatch.undo()

    assert not (tmp_path / "packed.tar.gz").exists()


def test_what_the_terminal_packs_the_platform_accepts(repository: Path, tmp_path: Path) -> None:
    write(repository, {"a/b/c.py": "x", "ü": "", "n" * 150: ""})
    (repository / "a" / "link").symlink_to("../ü")
    packed = pack_tracked(repository, tmp_path / "packed")

    summary = normalise(tmp_path / "packed", tmp_path / "result", ArchiveLimits())

    assert (summary.files, summary.links, summary.dropped) == (3, 1, 0)
    assert len(packed.files) == 4
