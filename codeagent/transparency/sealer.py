"""The sealer: what was committed becomes entries of the Merkle log, in order, and a signed checkpoint says so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress

from codeagent.errors import CodeAgentError, Unavailable
from codeagent.eventlog.database import Connection, Database, Row
from codeagent.eventlog.log import Cursor
from codeagent.rounds import Rounds
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger
from codeagent.transparency import tables
from codeagent.transparency.checkpoints import Checkpoint, open_checkpoint
from codeagent.transparency.growth import Growth
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.notes import NoteRejected
from codeagent.transparency.proofs import ProofRejected
from codeagent.transparency.reading import StoredTree
from codeagent.transparency.rows import problems_in, stored_leaf

log = get_logger(__name__)

SEAL_SECONDS = 1.0
HEAR_SECONDS = 2.0
_LOCK = 0x7365616C  # any fixed number that no other advisory lock has


class SealRefused(CodeAgentError):
    """The stored log contradicts what was signed before, or itself. Nothing is signed until somebody has looked."""

    code = "seal_refused"


class Sealer:
    """Any number may run: an advisory lock lets one seal at a time, in one transaction for the entries, their tiles and
    the checkpoint. Appends wait for none of it."""

    def __init__(
        self,
        database: Database,
        keys: LogKeys,
        *,
        seen: Checkpoint | None = None,
        awaits: Iterable[str] = (),
        most: int = 500,
    ) -> None:
        """`seen` is the newest checkpoint that was kept elsewhere: a log that does not continue it is refused. Nothing
        is signed before each place that it `awaits` was heard of."""
        self._database = database
        self._keys = keys
        self._most = most
        self._seen = seen  # the newest that this process knows to have been signed
        self._published = False
        self._unheard = set(awaits)
        self._all_heard = asyncio.Event()
        for target in self._unheard:
            metrics.AUDIT_UNREAD.labels(target).set(1)
        self._rounds = Rounds("seal", self._round)
        self.stop = self._rounds.stop

    async def start(self) -> None:
        await self._rounds.start()

    def use(self, keys: LogKeys) -> None:
        """Goes on with other keys of the same log. Raises `ValueError`, and keeps the former ones, for another's."""
        if keys.origin != self._keys.origin or not keys.signing:
            raise ValueError("a log keeps its name, and needs a private key to be signed with")
        self._keys, self._published = keys, False

    def heard(self, target: str, kept: Checkpoint | None) -> None:
        """What is kept at a place: that this was signed, so that a log that does not continue it is refused."""
        if kept is not None and (self._seen is None or kept.order > self._seen.order):
            self._seen = kept
        self._unheard.discard(target)
        metrics.AUDIT_UNREAD.labels(target).set(0)
        if not self._unheard:
            self._all_heard.set()

    async def _round(self) -> float:
        try:
            await self._hear()
            while await self.seal() == self._most:
                pass
        finally:
            newest = await tables.newest_checkpoint(self._database)
            waiting = await tables.unsealed_seconds(self._database, Cursor() if newest is None else newest.place)
            metrics.AUDIT_UNSEALED.set(waiting)
        return SEAL_SECONDS

    async def _hear(self) -> None:
        """Waits a moment for places that were not heard of yet, as nothing was when a process begins."""
        if self._unheard:
            with suppress(TimeoutError):
                async with asyncio.timeout(HEAR_SECONDS):
                    await self._all_heard.wait()

    async def seal(self) -> int:
        """Seals up to `most` events; returns how many. Raises `SealRefused`, and says so to whoever watches;
        `Unavailable` while a place was not heard of: what was cut off may be kept there."""
        if self._unheard:
            where = ", ".join(sorted(self._unheard))
            raise Unavailable(f"what is kept in {where} was not read yet", code="anchor_unread")
        try:
            count = await self._sealed(None)
        except SealRefused as error:
            metrics.AUDIT_REFUSED.labels("sealer").set(1)
            log.error("seal.refused", reason=error.detail)
            raise
        metrics.AUDIT_REFUSED.labels("sealer").set(0)
        metrics.AUDIT_SEALED.inc(count)
        return count

    async def state(self, stated: Checkpoint) -> int:
        """Seals as `seal` does, in the first checkpoint that tells of the restores of `stated`, which is the log's
        newest one but for them. Raises `SealRefused` where it is not."""
        return await self._sealed(stated)

    async def _sealed(self, stated: Checkpoint | None) -> int:
        async with self._database.transaction() as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK):
                return 0
            signed, count = await self._seal(connection, stated)
        if signed is not None and (self._seen is None or signed.order >= self._seen.order):
            self._seen = signed  # and not in the place of what was heard of meanwhile
        self._published = self._published or count > 0
        return count

    async def _seal(self, connection: Connection, stated: Checkpoint | None = None) -> tuple[Checkpoint | None, int]:
        stored = await tables.newest_checkpoint(connection)
        signed = None if stored is None else self._opened(stored)
        growth = await self._held(connection, signed, stated)
        place = Cursor() if stored is None else stored.place
        rows = await tables.unsealed(connection, place, self._most)
        if not rows:
            return signed, 0
        self._name_problems(rows)
        await tables.write_leaves(connection, growth.size, rows)
        for level, (had, hashes) in growth.add([stored_leaf(row) for row in rows]).items():
            await tables.write_hashes(connection, level, had, hashes)
        told = stated or signed
        made = Checkpoint(self._keys.origin, growth.size, growth.root, () if told is None else told.cuts)
        if not self._published:
            await tables.publish_keys(connection, [str(key) for key in self._keys.verifying])
        number = 1 if stored is None else stored.number + 1
        end = Cursor(int(rows[-1]["transaction_id"]), rows[-1]["global_position"])
        await tables.write_checkpoint(connection, number, made.size, made.root, made.signed(self._keys.signing), end)
        return made, len(rows)

    def _opened(self, stored: tables.StoredCheckpoint) -> Checkpoint:
        try:
            signed = open_checkpoint(stored.note, self._keys.origin, self._keys.verifying)
        except NoteRejected as error:
            raise SealRefused(f"the newest checkpoint is not ours: {error.detail}") from None
        if (signed.size, signed.root) != (stored.size, stored.root):
            raise SealRefused("the newest checkpoint is not filed as what it says")
        return signed

    async def _held(self, connection: Connection, signed: Checkpoint | None, stated: Checkpoint | None) -> Growth:
        """The tree to continue, once it is seen to be the one that was signed, and to continue what we saw before."""
        size = 0 if signed is None else signed.size
        if await tables.leaf_count(connection) != size:
            raise SealRefused(f"the newest checkpoint covers {size} entries, and there are more or fewer of them")
        try:
            growth = Growth(size, await tables.edge_tiles(connection, size))
        except ValueError as error:
            raise SealRefused(f"the tree is not whole: {error}") from None
        if signed is not None and growth.root != signed.root:
            raise SealRefused(f"the tiles contradict the checkpoint of {size} entries")
        if stated is not None and (stated.size, stated.root) != (size, growth.root):
            raise SealRefused(f"the statement is of a log of {stated.size} entries")
        if self._seen is not None and self._seen != signed:
            try:
                await StoredTree(connection).check_continues(self._seen, stated or signed)
            except ProofRejected as error:
                raise SealRefused(error.detail) from None
        return growth

    def _name_problems(self, rows: Sequence[Row]) -> None:
        """They are sealed as they are: what they were before is not ours to know, and the others must not wait."""
        for row in rows:
            for code, told in problems_in(row):
                if code != "event_unreadable":
                    metrics.AUDIT_FINDINGS.inc()
                    log.error("seal.finding", code=code, event_id=str(row["event_id"]), problem=told)
