"""Checkpoints that are kept outside the database: written once, and what contradicts them is not kept."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from codeagent.errors import Unavailable
from codeagent.eventlog.database import Database
from codeagent.telemetry import metrics
from codeagent.transparency.anchoring import Anchorer
from codeagent.transparency.checkpoints import Checkpoint
from codeagent.transparency.directory import DirectoryAnchor, anchor_files, keep_checkpoint, newest_kept
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.sealer import Sealer, SealRefused
from tests.integration.transparency.conftest import Tamper
from tests.integration.transparency.sealed import FOREIGN_KEY, KEY, KEYS, ORIGIN, append_runs, newest, seal_all

EMPTY = ("TRUNCATE audit_leaves", "TRUNCATE audit_tiles", "TRUNCATE audit_checkpoints")


def waiting() -> float:
    return metrics.AUDIT_UNANCHORED.labels("directory")._value.get()


async def test_the_newest_checkpoint_is_kept_once_as_a_file_that_nobody_writes_again(
    database: Database, tmp_path: Path
) -> None:
    folder, sealer = tmp_path / "anchors", Sealer(database, KEYS)
    anchorer = Anchorer(database, DirectoryAnchor(folder), KEYS)
    assert not await anchorer.anchor()
    for size in (3, 5):
        await append_runs(database, size - len(anchor_files(folder)) * 3)
        await seal_all(database, sealer)
        assert await anchorer.anchor()
        assert not await anchorer.anchor()
    assert [path.name for path in anchor_files(folder)] == [f"{3:020d}.checkpoint", f"{5:020d}.checkpoint"]
    assert anchor_files(folder)[-1].read_text() == (await newest(database)).note
    assert {stat.S_IMODE(path.stat().st_mode) & 0o333 for path in anchor_files(folder)} == {0}
    assert len(os.listdir(folder)) == 2
    keep_checkpoint(folder, 3, "another")
    assert anchor_files(folder)[0].read_text() != "another"
    assert waiting() == 0


async def test_what_is_not_kept_yet_is_measured(database: Database, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    await append_runs(database, 1)
    await seal_all(database, Sealer(database, KEYS))
    with pytest.raises(Unavailable, match="cannot be kept"):
        await Anchorer(database, DirectoryAnchor(tmp_path / "file" / "anchors"), KEYS).anchor()
    assert waiting() > 0


async def test_a_log_that_was_cut_or_made_anew_is_neither_kept_nor_sealed(
    database: Database, tamper: Tamper, tmp_path: Path
) -> None:
    await append_runs(database, 4)
    await seal_all(database, Sealer(database, KEYS))
    assert await Anchorer(database, DirectoryAnchor(tmp_path), KEYS).anchor()
    for statement in EMPTY:
        await tamper(statement)
    with pytest.raises(SealRefused, match="it had 4 entries and has 0"):
        await Anchorer(database, DirectoryAnchor(tmp_path), KEYS).anchor()
    with pytest.raises(SealRefused, match="it had 4 entries and has 0"):
        await Sealer(database, KEYS, seen=newest_kept(tmp_path, KEYS)).seal()
    await tamper("UPDATE events SET leaf_hash = sha256(leaf_hash) WHERE stream_version = 2")
    await append_runs(database, 2)
    await seal_all(database, Sealer(database, KEYS))  # by one who knows nothing of what was kept
    with pytest.raises(SealRefused, match=r"does not begin|does not continue"):
        await Anchorer(database, DirectoryAnchor(tmp_path), KEYS).anchor()
    assert len(anchor_files(tmp_path)) == 1


async def test_a_checkpoint_of_another_key_is_not_kept(database: Database, tmp_path: Path) -> None:
    await append_runs(database, 1)
    await seal_all(database, Sealer(database, LogKeys(ORIGIN, (FOREIGN_KEY,), (FOREIGN_KEY.verifier,))))
    with pytest.raises(SealRefused, match="no key that is known"):
        await Anchorer(database, DirectoryAnchor(tmp_path), KEYS).anchor()


def test_a_kept_file_that_was_changed_vouches_for_nothing(tmp_path: Path) -> None:
    keep_checkpoint(tmp_path, 7, "not a note")
    assert newest_kept(tmp_path, KEYS) is None


def test_a_checkpoint_that_is_filed_as_a_longer_one_hides_none(tmp_path: Path) -> None:
    longer, shorter = (Checkpoint(ORIGIN, size, bytes(32)) for size in (9, 3))
    keep_checkpoint(tmp_path, 9, longer.signed([KEY]))
    keep_checkpoint(tmp_path, 20, shorter.signed([KEY]))
    assert newest_kept(tmp_path, KEYS) == longer
