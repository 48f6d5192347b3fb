"""Logs stay private and bounded while somebody writes to them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from codeagent.embedded.log_files import bound_log, log_size, log_tail, open_log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


@pytest.fixture
def writer(log: Path) -> Iterator[int]:
    handle = open_log(log)
    yield handle
    os.close(handle)


def test_a_log_is_readable_by_its_owner_alone(log: Path, writer: int) -> None:
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_an_oversized_log_is_cut_and_its_writer_goes_on_at_the_start(log: Path, writer: int) -> None:
    os.write(writer, b"old " * 100)
    assert bound_log(log, max_bytes=100)
    os.write(writer, b"new")
    assert log.read_bytes() == b"new"
    assert (log.parent / "server.log.1").read_bytes() == b"old " * 100
    assert stat.S_IMODE((log.parent / "server.log.1").stat().st_mode) == 0o600


def test_a_log_within_its_bound_is_left_alone(log: Path, writer: int) -> None:
    os.write(writer, b"x" * 100)
    assert not bound_log(log, max_bytes=100)
    assert log.stat().st_size == 100


def test_a_log_that_is_not_there_is_no_trouble(log: Path) -> None:
    assert not bound_log(log)
    assert log_size(log) == 0
    assert log_tail(log, since=0) == ""


def test_the_tail_is_what_came_after_a_mark_and_has_a_limit(log: Path, writer: int) -> None:
    os.write(writer, b"before\n")
    mark = log_size(log)
    os.write(writer, b"after\n")
    assert log_tail(log, mark) == "after"
    assert log_tail(log, 0, max_bytes=3) == "er"


def test_a_planted_symbolic_link_is_not_followed(log: Path, tmp_path: Path) -> None:
    log.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        open_log(log)
