"""Files below a directory a hostile program writes to."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeagent.sandboxes import beneath
from codeagent.sandboxes.protocol import SandboxFailure

OWNER = os.getuid()


def reason(action: object, *arguments: object) -> str:
    with pytest.raises(SandboxFailure) as caught:
        action(*arguments)  # type: ignore[operator]
    assert caught.value.retryable is False
    return caught.value.reason


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "dir").mkdir(parents=True)
    (root / "dir" / "file").write_text("content")
    (root / "link-file").symlink_to("dir/file")
    (root / "link-dir").symlink_to("dir")
    (root / "link-out").symlink_to(tmp_path / "outside")
    (root / "dir" / "link-up").symlink_to("../../outside/secret")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    return root


def test_a_file_is_read(root: Path) -> None:
    assert beneath.read(root, "dir/file", 100) == b"content"
    assert beneath.read(root, "./dir//file", 7) == b"content"


@pytest.mark.parametrize(
    "path", ["link-file", "link-dir/file", "link-out/secret", "dir/link-up", "pipe", "socket", "dir", ".", "dir/file/x"]
)
def test_only_regular_files_reached_through_directories_are_read_or_replaced(root: Path, path: str) -> None:
    assert reason(beneath.read, root, path, 100) == "not_a_file"
    assert reason(beneath.write, root, path, b"x", OWNER) == "not_a_file"
    assert (root.parent / "outside" / "secret").read_text() == "secret"
    assert (root / "dir" / "file").read_text() == "content"


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "..", "dir/../../outside/secret", "a\0b", "x" * 256, "a/" * 2100, "\ud800"]
)
def test_paths_that_name_nothing_below_are_refused(root: Path, path: str) -> None:
    assert reason(beneath.read, root, path, 100) == "bad_path"
    assert reason(beneath.write, root, path, b"x", OWNER) == "bad_path"


def test_a_missing_file_is_told(root: Path) -> None:
    assert reason(beneath.read, root, "missing", 100) == "no_such_file"
    assert reason(beneath.read, root, "no/such/dir", 100) == "no_such_file"


def test_a_file_beyond_the_limit_is_not_read(root: Path) -> None:
    assert reason(beneath.read, root, "dir/file", 6) == "too_large"
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert reason(beneath.read, root, "sparse", 100) == "too_large"


def test_a_file_is_written_whole_or_not_at_all_with_its_directories(root: Path) -> None:
    beneath.write(root, "new/dir/file", b"one", OWNER)
    assert (root / "new/dir/file").read_bytes() == b"one"
    assert stat.S_IMODE((root / "new").stat().st_mode) == 0o755
    (root / "new/dir/file").chmod(0o755)
    beneath.write(root, "new/dir/file", b"two" * 1_000_000, OWNER)
    assert (root / "new/dir/file").read_bytes() == b"two" * 1_000_000
    assert stat.S_IMODE((root / "new/dir/file").stat().st_mode) == 0o755
    assert [path.name for path in (root / "new/dir").iterdir()] == ["file"]


def test_a_failed_write_leaves_the_file_as_it_was(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int, _data: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    assert reason(beneath.write, root, "dir/file", b"new", OWNER) == "workspace_full"
    monkeypatch.undo()
    assert (root / "dir" / "file").read_text() == "content"
    assert sorted(path.name for path in (root / "dir").iterdir()) == ["file", "link-up"]


def test_a_directory_is_one_only_without_links(root: Path) -> None:
    assert beneath.is_directory(root, "dir")
    assert beneath.is_directory(root, ".")
    assert not beneath.is_directory(root, "link-dir")
    assert not beneath.is_directory(root, "dir/file")


@given(st.text(max_size=40))
def test_no_path_leads_up(path: str) -> None:
    try:
        parts = beneath.components(path)
    except SandboxFailure as failure:
        assert failure.reason == "bad_path"
    else:
        assert not {"..", ".", ""} & set(parts)
        assert not any("/" in part or "\0" in part for part in parts)
