"""Up to which moment a backup can be restored: what the archive says of its last transactions."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from codeagent.backups.programs import run_program
from codeagent.backups.repository import Backup, Repository
from codeagent.backups.wal import Coverage, Timeline

_COMMIT = re.compile(r"desc: COMMIT (?:PREPARED )?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) UTC")
_MOST_LOOKED_AT = 8
"""Segments without a transaction, before the search for one is given up."""


async def last_transaction(
    repository: Repository, backup: Backup, timeline: Timeline, coverage: Coverage, programs: Path
) -> datetime | None:
    """The moment of the last commit that can be replayed, by the server's clock; None where none of the last segments
    has one, or they cannot be read."""
    if coverage.last is None:
        return None
    newest = coverage.last.number
    for number in range(newest, max(newest - _MOST_LOOKED_AT, backup.first_segment - 1), -1):
        for segment in timeline.holders(number, backup.segment_bytes):
            file = repository.segment_file(backup, segment)
            if not file.exists():
                continue
            # Its status says nothing: where the log ends, it complains.
            _, said = await run_program([str(programs / "pg_waldump"), "--rmgr=Transaction", str(file)])
            if commits := _COMMIT.findall(said):
                return datetime.fromisoformat(commits[-1]).replace(tzinfo=UTC)
    return None
