"""Looks at a database that was restored: does its log hold, and what is not in it that was signed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from codeagent.errors import InvalidInput
from codeagent.eventlog.database import Connection, Database
from codeagent.transparency.checkpoints import Cut
from codeagent.transparency.directory import anchor_files
from codeagent.transparency.findings import Discrepancy
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.proofs import ProofRejected
from codeagent.transparency.restores import Shortfall, shortfall_in
from codeagent.transparency.verification import LogVerification
from codeagent.transparency.witnesses import Found, Witness, kept_witnesses


@dataclass(frozen=True, slots=True)
class Lost:
    """A checkpoint that was kept covers entries `first` up to `end`, which the log does not have."""

    first: int
    end: int
    kept_at: datetime | None


@dataclass(slots=True)
class Examination:
    """Verifies the log against its keys, and against checkpoints that were kept: those of a directory where there is
    one, and `others`. What those know beyond its end is no finding, but `lost`. After the findings, the counts are
    those of what was checked."""

    database: Database
    keys: LogKeys
    anchors: Path | None
    others: Sequence[Found] = ()
    entries: int = 0
    checkpoints: int = 0
    waiting: int = 0
    kept: int = 0
    cuts: Sequence[Cut] = ()
    lost: Lost | None = None

    async def findings(self) -> AsyncIterator[Discrepancy]:
        if self.anchors is not None and not self.anchors.is_dir():
            raise InvalidInput(f"{self.anchors} is no directory of checkpoints", code="anchors_missing")
        files = () if self.anchors is None else anchor_files(self.anchors)
        kept = [*kept_witnesses(files, self.keys), *self.others]
        self.kept = len(kept)
        async with self.database.transaction() as connection:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            missing = await self._missing(connection, kept)
            stated = None if missing is None else missing.stated
            verification = LogVerification(connection, self.keys, kept, stated=stated)
            async for found in verification.findings():
                yield found
        self.entries, self.waiting = verification.entries, verification.waiting
        self.checkpoints = verification.checkpoints
        self.cuts = verification.cuts if missing is None else missing.log.cuts
        self.lost = None if missing is None else _lost(missing, kept)

    async def _missing(self, connection: Connection, kept: Sequence[Found]) -> Shortfall | None:
        """None as well for a log that what was kept is not of: then each of that is a finding."""
        try:
            return await shortfall_in(connection, self.keys, kept)
        except ProofRejected:
            return None


def _lost(missing: Shortfall, kept: Sequence[Found]) -> Lost:
    newest = [each for each in kept if isinstance(each, Witness) and each.checkpoint == missing.newest]
    moments = [each.kept_at for each in newest if each.kept_at is not None]
    return Lost(missing.cut.kept, missing.cut.signed, min(moments, default=None))
