"""The data directory: one holder at a time, files that appear whole."""

from __future__ import annotations

import os
import signal
import stat
import time
from pathlib import Path

import pytest

from codeagent.embedded.children import fork_child, run_forked
from codeagent.embedded.directories import (
    DirectoryLock,
    default_data_dir,
    make_directory,
    sync_tree,
    write_atomically,
)
from codeagent.errors import Unavailable


def test_a_lock_refuses_everybody_else_and_names_its_holder(tmp_path: Path) -> None:
    first, second = DirectoryLock(tmp_path), DirectoryLock(tmp_path)
    first.acquire()
    first.acquire()
    with pytest.raises(Unavailable, match=f"process {os.getpid()}") as refusal:
        second.acquire()
    assert refusal.value.code == "data_dir_in_use"
    first.release()
    second.acquire()
    second.release()


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    def hold_and_die() -> None:
        DirectoryLock(tmp_path).acquire()
        os.kill(os.getpid(), signal.SIGKILL)

    assert run_forked(hold_and_die, 10) == -signal.SIGKILL
    lock = DirectoryLock(tmp_path)
    lock.acquire()
    lock.release()


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    lock.acquire()

    # A child shares the files that were open when it was forked; were the lock among them, our release were none.
    child = fork_child(lambda: time.sleep(60))
    try:
        lock.release()
        lock.acquire()
        lock.release()
        other = DirectoryLock(tmp_path)
        other.acquire()
        other.release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_write_replaces_the_whole_file_privately(tmp_path: Path) -> None:
    target = tmp_path / "processes.json"
    target.write_text("something longer than the new text")
    write_atomically(target, "new", durable=True)
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["processes.json"]


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "processes.json"
    target.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(target, "\udcff")
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_directories_are_made_with_their_parents_whatever_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        make_directory(tmp_path / "a" / "b")
    finally:
        os.umask(previous)
    expected = 0o711 if os.geteuid() == 0 else 0o700
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")] == [expected] * 2


def test_an_existing_directory_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine").chmod(0o750)
    make_directory(tmp_path / "mine")
    assert stat.S_IMODE((tmp_path / "mine").stat().st_mode) == 0o750


def test_syncing_a_tree_takes_whatever_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "file").write_text("x")
    (tmp_path / "dangling").symlink_to("nowhere")
    sync_tree(tmp_path)


def test_root_keeps_data_where_other_accounts_can_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data_dir() == Path("/var/lib/codeagent")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/ada")
    assert default_data_dir() == Path("/home/ada/.local/share/codeagent")
