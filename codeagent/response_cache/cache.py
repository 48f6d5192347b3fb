"""The cache itself: sealed replies by their keys, bounded for each tenant."""

from __future__ import annotations

from codeagent.encryption import NotOpened, SecretBox
from codeagent.eventlog.database import Database
from codeagent.providers.protocol import ModelReply, ModelRequest
from codeagent.response_cache import tables
from codeagent.response_cache.reply import packed, unpacked
from codeagent.response_cache.slot import BOUNDS, Bounds, Slot
from codeagent.subjects.key import NotOpenedBySubject


class ResponseCache:
    """`database` owns the table. Both methods raise what it raises."""

    def __init__(self, database: Database, box: SecretBox, bounds: Bounds = BOUNDS) -> None:
        self._database = database
        self._box = box
        self._bounds = bounds

    async def find(self, slot: Slot, request: ModelRequest) -> ModelReply | None:
        """What was kept of a reply to `request`, no older than the slot allows. What cannot be opened, its key having
        been rotated away for one, is not there; what can be and is no reply goes."""
        row = await tables.find(self._database, slot)
        if row is None:
            return None
        try:
            kept = self._box.open(row["reply_sealed"], slot.place)
            document = (await self._database.subjects.open_named({slot.place: kept}))[slot.place]
        except (NotOpened, NotOpenedBySubject):
            return None
        if document is None:
            return None
        reply = unpacked(request, document)
        if reply is None:
            await tables.remove(self._database, slot, row["stored_at"])
        return reply

    async def keep(self, slot: Slot, reply: ModelReply) -> bool:
        """False where the reply is too long, or the principal is being erased."""
        document = packed(reply)
        if len(document) > self._bounds.reply_bytes:
            return False
        subject = await self._database.subjects.of(slot.tenant_id, slot.principal_id)
        if subject is not None:
            if not subject.seals:
                return False
            document = subject.seal_named(document, slot.place)
        await tables.keep(self._database, slot, self._box.seal(document, slot.place), self._bounds)
        return True
