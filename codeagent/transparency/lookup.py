"""Proofs for those who read: a tenant's own events, and the log as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from codeagent.errors import Conflict, InvalidInput, NotFound, Unavailable
from codeagent.eventlog.database import Database
from codeagent.transparency import tables
from codeagent.transparency.exports import Entry
from codeagent.transparency.proof_text import LogProof
from codeagent.transparency.proofs import ProofRejected
from codeagent.transparency.reading import StoredTree
from codeagent.transparency.tiles import Tile
from codeagent.transparency.tree import HASH_BYTES


class NotSealedYet(Conflict):
    """The event is committed, and becomes an entry with the next seal."""

    code = "not_sealed_yet"
    retry_after = 1


class LogLookup:
    """Works under the edge's role: which event it is, row-level security decides."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tree = StoredTree(database)

    async def newest(self, least: int = 0) -> tables.StoredCheckpoint:
        """The newest checkpoint. Raises `NotFound` where nothing of that size was signed."""
        found = await tables.newest_checkpoint(self._database, least)
        if found is None:
            raise NotFound("No checkpoint has been signed.")
        return found

    async def keys(self) -> str:
        rows = await self._database.fetch("SELECT verifier_key FROM audit_keys ORDER BY used_since, verifier_key")
        return "".join(f"{row['verifier_key']}\n" for row in rows)

    async def proof(self, tenant_id: str, event_id: UUID) -> LogProof:
        """Raises `NotFound` for what is no event of the tenant and where nothing is sealed at all, `NotSealedYet`."""
        rows = await self._database.fetch(
            """SELECT l.leaf_index FROM events e LEFT JOIN audit_leaves l USING (global_position)
               WHERE e.event_id = $1 AND e.tenant_id = $2""",
            event_id,
            tenant_id,
            tenant=tenant_id,
        )
        if not rows:
            raise NotFound("There is no such event.")
        index: int | None = rows[0]["leaf_index"]
        if index is None:
            await self.newest()  # where nobody seals, nobody should ask again
            raise NotSealedYet("The event is not sealed yet. Ask again in a second.")
        newest = await self.newest(index + 1)
        try:
            return LogProof(index, await self._tree.inclusion(index, newest.size), newest.note)
        except ProofRejected as error:
            raise _not_whole(error) from None

    async def entries(self, tenant_id: str, events: Sequence[UUID], size: int) -> dict[UUID, Entry]:
        """By id, the tenant's events that are entries of the log of that size, with their proofs."""
        rows = await self._database.fetch(
            """SELECT e.event_id, l.leaf_index FROM events e JOIN audit_leaves l USING (global_position)
               WHERE e.event_id = ANY ($1) AND l.leaf_index < $2""",
            list(events),
            size,
            tenant=tenant_id,
        )
        indexes = [row["leaf_index"] for row in rows]
        try:
            paths = await self._tree.inclusions(indexes, size)
        except ProofRejected as error:
            raise _not_whole(error) from None
        return {row["event_id"]: Entry(index, path) for row, index, path in zip(rows, indexes, paths, strict=True)}

    async def tile(self, wanted: Tile) -> bytes:
        """The hashes of a tile, one after the other. Raises `NotFound` for one that the log does not reach."""
        found = await tables.tiles(self._database, [(wanted.level, wanted.index)])
        hashes = found.get((wanted.level, wanted.index), b"")[: wanted.width * HASH_BYTES]
        if len(hashes) < wanted.width * HASH_BYTES:
            raise NotFound("There is no such tile.")
        return hashes

    async def consistency(self, old: int, new: int) -> Sequence[bytes]:
        """Raises `InvalidInput` for a log longer than there is."""
        newest = await self.newest()
        if new > newest.size:
            raise InvalidInput(f"The log has {newest.size} entries.", pointer="query:to")
        try:
            return await self._tree.consistency(old, new)
        except ProofRejected as error:
            raise _not_whole(error) from None


def _not_whole(error: ProofRejected) -> Unavailable:
    return Unavailable(f"The proof cannot be made: {error.detail}.", code="log_not_whole")
