"""A restored data directory does not go on with keys that are not its own."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from codeagent.cli.restored import lend_keys, note_restore, require_key
from codeagent.errors import Rejected


def test_a_restored_directory_waits_for_its_keys(tmp_path: Path) -> None:
    require_key(tmp_path, "kek")  # one that is new gets keys of its own
    note_restore(tmp_path, {"backup": "20261127T020003Z"})
    with pytest.raises(Rejected, match="put its own kek in") as refused:
        require_key(tmp_path, "kek")
    assert refused.value.code == "restored_without_keys"
    (tmp_path / "kek").write_text("first:...")
    require_key(tmp_path, "kek")


def test_keys_are_lent_and_checkpoints_that_the_log_does_not_continue_are_set_apart(tmp_path: Path) -> None:
    lender, restored = tmp_path / "lender", tmp_path / "restored"
    (lender / "checkpoints").mkdir(parents=True)
    restored.mkdir()
    for size in (3, 7, 12):
        (lender / "checkpoints" / f"{size:020d}.checkpoint").write_text(f"{size}")
    (lender / "kek").write_text("old")
    (lender / "audit-key").write_text("signs")
    (restored / "kek").write_text("newer")
    (lender / "subject-keys").mkdir()
    (lender / "subject-keys" / "key_1.json").write_text("{}")
    lend_keys(lender, restored, 7)
    assert [path.name[-12:-11] for path in sorted((restored / "checkpoints").iterdir())] == ["3", "7"]
    assert [path.read_text() for path in (restored / "checkpoints-not-restored").iterdir()] == ["12"]
    assert ((restored / "kek").read_text(), (restored / "audit-key").read_text()) == ("newer", "signs")
    assert [path.name for path in (restored / "subject-keys").iterdir()] == ["key_1.json"]
    assert stat.S_IMODE((restored / "audit-key").stat().st_mode) == 0o600
