"""Recordings tell what the workers do today, fact by fact: `make golden` makes them."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from codeagent import clock
from codeagent.eventlog.database import Database
from codeagent.workers.effect import Work
from tests.golden import RECORDINGS
from tests.golden.played import played
from tests.golden.stories import STORIES
from tests.integration.workers.simulated import frozen_time

RECORD = os.environ.get("CODEAGENT_TEST_RECORD") == "1"
"""Whether recordings are made, not compared."""


async def _at_once(function: Any, *arguments: Any) -> Any:
    return function(*arguments)


def told(lines: bytes) -> list[tuple[str, str]]:
    """What happened, and why it ended. Not when: a sweep may come a second sooner or later. What each fact says in
    full is compared where the recording is decided again."""
    events = [json.loads(line) for line in lines.splitlines()]
    return [(event["type"], event["data"].get("status_reason", "")) for event in events]


def _seconds() -> float:
    return (frozen_time.now() - frozen_time.EPOCH).total_seconds()


@pytest.fixture
def ids(newest_database_url: str, monkeypatch: pytest.MonkeyPatch) -> frozen_time.Ids:
    """Time stands still, threads do their work at once, and ids repeat."""
    asyncio.run(frozen_time.freeze_database(newest_database_url))
    ids = frozen_time.Ids()
    monkeypatch.setattr(clock, "now", frozen_time.now)
    monkeypatch.setattr(clock, "new_uuid", ids)
    monkeypatch.setattr(asyncio, "to_thread", _at_once)
    monkeypatch.setattr(time, "monotonic", _seconds)
    monkeypatch.setattr(Work, "elapsed_seconds", 0.25)
    return ids


@pytest.mark.timeout(600)
def test_every_story_is_played_as_it_was_recorded(
    newest_database_url: str, ids: frozen_time.Ids, tmp_path: Path
) -> None:
    changed = []
    for name, story in STORIES.items():
        ids.start_over()
        # A loop each: its time begins anew.
        with asyncio.Runner(loop_factory=frozen_time.FrozenLoop) as runner:
            database = Database(newest_database_url, connections=2)
            lines = runner.run(played(database, story, tmp_path))
            runner.run(database.close())
        file = RECORDINGS / f"{name}.jsonl"
        if RECORD:
            file.write_bytes(lines)
        elif not file.exists() or told(file.read_bytes()) != told(lines):
            changed.append(name)
    assert changed == [], "they went otherwise than recorded: `make golden`, and look at the difference"
    assert {path.stem for path in RECORDINGS.glob("*.jsonl")} == STORIES.keys()
