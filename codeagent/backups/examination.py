"""Looks at a database that was restored: does its log hold, and what is not in it that was signed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from codeagent.errors import InvalidInput
from codeagent.eventlog.database import Database
from codeagent.transparency.directory import anchor_files
from codeagent.transparency.findings import Code, Discrepancy
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.verification import LogVerification
from codeagent.transparency.witnesses import Witness, kept_witnesses


@dataclass(frozen=True, slots=True)
class Lost:
    """A checkpoint that was kept covers entries `first` up to `end`, which the log does not have."""

    first: int
    end: int
    kept_at: datetime


@dataclass(slots=True)
class Examination:
    """Verifies the log against its keys, and against the checkpoints of a directory where there is one. What those know
    beyond its end is no finding, but `lost`. After the findings, the counts are those of what was checked."""

    database: Database
    keys: LogKeys
    anchors: Path | None
    entries: int = 0
    checkpoints: int = 0
    waiting: int = 0
    kept: int = 0
    lost: Lost | None = None

    async def findings(self) -> AsyncIterator[Discrepancy]:
        if self.anchors is not None and not self.anchors.is_dir():
            raise InvalidInput(f"{self.anchors} is no directory of checkpoints", code="anchors_missing")
        kept = list(kept_witnesses(anchor_files(self.anchors), self.keys)) if self.anchors is not None else []
        believed = [each for each in kept if isinstance(each, Witness)]
        self.kept, names = len(kept), {each.name for each in believed}
        async with self.database.transaction() as connection:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            verification = LogVerification(connection, self.keys, kept)
            async for found in verification.findings():
                if found.code is not Code.LOG_TRUNCATED or found.where not in names:
                    yield found
        self.entries, self.waiting = verification.entries, verification.waiting
        self.checkpoints = verification.checkpoints
        self.lost = self._lost(believed)

    def _lost(self, kept: Sequence[Witness]) -> Lost | None:
        newest = max(kept, key=lambda each: each.size, default=None)
        if newest is None or self.anchors is None or newest.size <= self.entries:
            return None
        kept_at = datetime.fromtimestamp((self.anchors / newest.name).stat().st_mtime, UTC)
        return Lost(self.entries, newest.size, kept_at)
