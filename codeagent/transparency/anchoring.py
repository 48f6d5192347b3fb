"""Takes checkpoints out of the database's reach: each minute the newest one goes where none is ever changed."""

from __future__ import annotations

from collections.abc import Callable

from codeagent.eventlog.database import Database
from codeagent.rounds import Rounds
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger
from codeagent.transparency import tables
from codeagent.transparency.anchors import Anchor
from codeagent.transparency.checkpoints import Checkpoint, open_checkpoint
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.notes import NoteRejected
from codeagent.transparency.proofs import ProofRejected
from codeagent.transparency.reading import StoredTree
from codeagent.transparency.sealer import SealRefused

log = get_logger(__name__)

ANCHOR_SECONDS = 60.0


class Anchorer:
    """Has the newest checkpoint kept at one place, once it is seen to continue the last one kept there."""

    def __init__(
        self,
        database: Database,
        anchor: Anchor,
        keys: LogKeys,
        heard: Callable[[str, Checkpoint | None], object] = lambda *_: None,
    ) -> None:
        """`heard` is told what is kept there, None where nothing is, before anything is added."""
        self._database = database
        self._anchor = anchor
        self._keys = keys
        self._heard = heard
        self._rounds = Rounds("anchor", self._round, target=anchor.target)
        self.start, self.stop = self._rounds.start, self._rounds.stop

    def use(self, keys: LogKeys) -> None:
        """Goes on with other keys of the same log."""
        self._keys = keys

    async def _round(self) -> float:
        await self.anchor()
        return ANCHOR_SECONDS

    async def anchor(self) -> bool:
        """Whether there was one to keep. Raises `SealRefused` where it contradicts what is kept, `Unavailable` where
        the place cannot be used."""
        try:
            kept = await self._anchor.newest(self._keys)
            self._heard(self._anchor.target, kept)
            newest = await self._newest(kept)
            if newest is not None:
                await self._anchor.keep(newest)
                await tables.note_anchored(self._database, self._anchor.target, newest.size)
            return newest is not None
        finally:
            await self._measure()

    async def _newest(self, kept: Checkpoint | None) -> tables.StoredCheckpoint | None:
        """The checkpoint to keep, None where the newest is kept already."""
        stored = await tables.newest_checkpoint(self._database)
        refused = metrics.AUDIT_REFUSED.labels(f"anchor_{self._anchor.target}")
        try:
            signed = None if stored is None else self._opened(stored.note)
            if kept is not None and kept != signed:
                await StoredTree(self._database).check_continues(kept, signed)
        except (NoteRejected, ProofRejected) as error:
            refused.set(1)
            log.error("anchor.refused", target=self._anchor.target, reason=error.detail)
            raise SealRefused(error.detail) from None
        refused.set(0)
        return None if kept == signed else stored

    def _opened(self, note: str) -> Checkpoint:
        return open_checkpoint(note, self._keys.origin, self._keys.verifying)

    async def _measure(self) -> None:
        target = self._anchor.target
        waiting = await tables.unanchored_seconds(self._database, target)
        metrics.AUDIT_UNANCHORED.labels(target).set(max(waiting, await self._anchor.delay_seconds()))
