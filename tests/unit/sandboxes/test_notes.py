"""Notes between a worker and its machine's operators, who may be root where the worker is nobody."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from codeagent.sandboxes.notes import Note, Notes

NOTE = Note("w1", "run_a", "ten_a", "bwrap", 2, 77, "2026-11-27T00:00:00Z", "working", "2026-11-27T00:00:00Z", "shell")


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    made = Notes(tmp_path)
    made.prepare()
    return made


def test_a_note_is_read_as_it_was_written_and_begun_anew(notes: Notes, tmp_path: Path) -> None:
    notes.write(NOTE)
    notes.write(replace(NOTE, state="idle"))
    assert list(notes.all()) == [replace(NOTE, state="idle")]
    notes.ask_to_end("w1", "operator:0")
    assert notes.asked("w1")
    assert notes.take_orders() == [("w1", "operator:0")]
    assert not notes.asked("w1")
    notes.prepare()
    assert list((tmp_path / "notes").iterdir()) == []


def as_text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


@pytest.mark.parametrize(
    "plant",
    [
        as_text("{"),
        as_text("[]"),
        as_text("[" * 60_000),
        as_text(json.dumps({**asdict(NOTE), "workspace": "../../etc/cron.d/x"})),
        as_text(json.dumps({**asdict(NOTE), "run_id": "\x1b[2J"})),
        as_text(json.dumps({**asdict(NOTE), "run_id": ["run_a"]})),
        as_text(json.dumps({**asdict(NOTE), "level": "2"})),
        lambda path: path.symlink_to(path.with_name("elsewhere")),
        os.mkfifo,
        os.mkdir,
    ],
    ids=(
        "half",
        "no object",
        "nested",
        "another place",
        "no text",
        "no word",
        "no number",
        "link",
        "fifo",
        "directory",
    ),
)
def test_what_no_worker_would_write_is_no_note(notes: Notes, tmp_path: Path, plant: Callable[[Path], object]) -> None:
    (tmp_path / "notes" / "elsewhere").write_text(json.dumps(asdict(NOTE)))
    plant(tmp_path / "notes" / "w1.json")
    assert list(notes.all()) == []


def test_an_order_is_written_over_no_link(notes: Notes, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "notes" / "w1.end").symlink_to(tmp_path / "precious")
    notes.ask_to_end("w1", "operator:0")
    assert (tmp_path / "precious").read_text() == "precious"
    assert notes.take_orders() == [("w1", "operator:0")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives anything away")
def test_what_root_asks_belongs_to_the_worker_who_has_to_read_it(tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    notes.give_to(60_919, 60_919)
    notes.ask_to_end("w1", "operator:0")
    for path in (tmp_path / "notes", tmp_path / "notes" / "w1.end"):
        assert (path.stat().st_uid, path.stat().st_mode & 0o077) == (60_919, 0)
