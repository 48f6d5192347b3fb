"""Which directories of single commands are left over: those of killed ones, and of nobody else."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from codeagent.cli.sandbox_exec import _is_abandoned


def used(path: Path) -> Path:
    """As a command has it once it has begun."""
    path.mkdir()
    (path / "lock").touch()
    return path


def test_one_that_nobody_holds_is_left_over(tmp_path: Path) -> None:
    assert _is_abandoned(used(tmp_path / "left"))


def test_one_whose_command_is_at_work_is_not(tmp_path: Path) -> None:
    path = used(tmp_path / "held")
    with (path / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert not _is_abandoned(path)


def test_one_that_is_about_to_be_locked_is_not(tmp_path: Path) -> None:
    path = tmp_path / "new"
    path.mkdir()
    assert not _is_abandoned(path)


def test_one_that_has_gone_since_it_was_seen_is_not(tmp_path: Path) -> None:
    assert not _is_abandoned(tmp_path / "gone")


def test_a_link_to_one_is_not(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(used(tmp_path / "left"))
    assert not _is_abandoned(link)


def test_another_users_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, somebody_else = used(tmp_path / "theirs"), os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: somebody_else)
    assert not _is_abandoned(path)
