"""Where `codeagent up` archives the write-ahead log of its database."""

from __future__ import annotations

import stat
from pathlib import Path

from codeagent.cli.backing_up import archiving
from codeagent.cli.up_settings import UpOptions, up_settings


def test_nothing_is_archived_unless_there_is_a_directory_for_it(tmp_path: Path) -> None:
    assert archiving(up_settings(UpOptions(tmp_path)), tmp_path) == {}


def test_segments_go_into_a_directory_of_the_servers_own(state_dir: Path) -> None:
    root = state_dir / "backups"
    settings = up_settings(UpOptions(state_dir)).model_copy(update={"backup_dir": root})
    found = archiving(settings, state_dir)
    assert found["archive_mode"] == "on"
    assert found["basic_archive.archive_directory"] == str(root / "wal")
    assert stat.S_IMODE((root / "wal").stat().st_mode) == 0o700
    assert archiving(settings, state_dir) == found
