"""`audit verify`: everything that proves the log, recomputed from the rows and held against signed checkpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from codeagent.eventlog.log import Cursor
from codeagent.transparency.checkpoints import Checkpoint, Cut
from codeagent.transparency.completeness import TileCheck, Unmapped, holes
from codeagent.transparency.erased import missing_content
from codeagent.transparency.findings import Code, Discrepancy
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.proofs import ProofRejected
from codeagent.transparency.reading import StoredTree
from codeagent.transparency.settling import Settling
from codeagent.transparency.tables import AnyConnection
from codeagent.transparency.tree import CompactRange
from codeagent.transparency.walk import Walk
from codeagent.transparency.witnesses import (
    Found,
    Witness,
    Witnesses,
    newest_signed,
    stored_witnesses,
    without_given_up,
)


@dataclass(slots=True)
class LogVerification:
    """Verifies the entries from `first` up to `last`, None for all, over a connection in a transaction that sees one
    state throughout. Memory does not grow with the log. After the findings, the counts are those of what was checked.
    """

    connection: AnyConnection
    keys: LogKeys
    kept: Sequence[Found] = ()
    """What checkpoints that were kept elsewhere have to say."""
    first: int = 0
    last: int | None = None
    entries: int = 0
    checkpoints: int = 0
    waiting: int = 0
    """Events that are not sealed yet, with nothing but their own hashes to vouch for them."""
    stated: Checkpoint | None = None
    """The newest checkpoint with what it would state of restores; else it is the one that is stored."""
    cuts: Sequence[Cut] = ()
    """The restores that the log states to have gone on from,"""
    given_up: int = 0
    """and how many of the kept checkpoints cover what was given up with them."""

    async def findings(self) -> AsyncIterator[Discrepancy]:
        """All of them; one does not keep the next from being found."""
        length = await self._length()
        end = length if self.last is None else min(self.last, length)
        witnesses = Witnesses(stored_witnesses(self.connection, self.keys), await self._believed())
        for found in witnesses.discrepancies:
            yield found
        try:
            settling = Settling(CompactRange(self.first, await StoredTree(self.connection).nodes(self.first)))
        except ProofRejected as error:
            yield Discrepancy(Code.TILE_MISSING, f"the tree before entry {self.first}", error.detail)
            return
        walk = Walk(self.connection, witnesses, settling, self.first, end, length)
        async for skipped in witnesses.upto(self.first):  # what was signed before is no matter of this range
            if isinstance(skipped, Discrepancy):
                yield skipped
        witnesses.count = 0
        async for found in walk.findings():
            yield found
        self.entries = max(end - self.first, 0)
        async for found in self._around(walk, length):
            yield found
        self.checkpoints = witnesses.count

    async def _believed(self) -> Sequence[Found]:
        """What was kept elsewhere, but for what the log states to be given up. Only a signed statement counts."""
        newest = self.stated or await newest_signed(self.connection, self.keys)
        believed = without_given_up(self.kept, newest)
        self.cuts, self.given_up = () if newest is None else newest.cuts, len(self.kept) - len(believed)
        return believed

    async def _around(self, walk: Walk, length: int) -> AsyncIterator[Discrepancy]:
        is_whole = self.first == 0 and self.last is None
        unmapped = Unmapped(self.connection, walk.unmapped)
        begins = Cursor() if self.first == 0 or walk.begins is None else walk.begins
        async for found in unmapped.findings(begins, walk.place, is_bounded=self.last is not None):
            yield found
        self.waiting = unmapped.waiting
        async for found in missing_content(self.connection, begins.before(), None if self.last is None else walk.place):
            yield found
        if not is_whole:
            if walk.end == length > walk.witnesses.newest_stored:
                yield _uncovered(walk.witnesses.newest_stored, length)
            return
        async for found in holes(self.connection):
            yield found
        async for found in TileCheck(self.connection, self.connection, length, walk.settling.changed_tiles).findings():
            yield found
        async for beyond in walk.witnesses.upto(1 << 63):
            yield beyond if isinstance(beyond, Discrepancy) else _cut(beyond, length)
        if walk.witnesses.newest_stored < length:
            yield _uncovered(walk.witnesses.newest_stored, length)

    async def _length(self) -> int:
        """How many entries there are or were, as far as anything in the database still says so."""
        [row] = await self.connection.fetch(
            """SELECT greatest(
                   (SELECT coalesce(max(leaf_index) + 1, 0) FROM audit_leaves),
                   (SELECT coalesce(max(tree_size), 0) FROM audit_checkpoints WHERE tree_size <= (
                       SELECT coalesce(max(global_position), 0) FROM events)))"""
        )
        length: int = row[0]
        return length


def _uncovered(covered: int, length: int) -> Discrepancy:
    where = f"entries {covered} to {length - 1}"
    return Discrepancy(Code.CHECKPOINT_MISSING, where, "no checkpoint that can be believed covers them")


def _cut(witness: Witness, length: int) -> Discrepancy:
    detail = f"it covers {witness.size} entries, and the log has {length}"
    return Discrepancy(Code.LOG_TRUNCATED, witness.name, detail)


async def one_state(connection: AnyConnection) -> None:
    """Begins what `LogVerification` needs; the connection's end ends it."""
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
