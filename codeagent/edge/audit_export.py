"""The audit as a file: an event a line, and a last one that tells how many there were and their digest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any
from uuid import UUID

import orjson

from codeagent import clock
from codeagent.edge.audit_models import cloud_event
from codeagent.messages.envelope import TYPE_PREFIX, instant
from codeagent.projections.audit_search import AuditEntry, AuditFilter, AuditSearch
from codeagent.transparency.exports import Entry, proving, rendering
from codeagent.transparency.lookup import LogLookup
from codeagent.transparency.ocsf import ocsf_ended
from codeagent.transparency.tables import StoredCheckpoint

ENDED = f"{TYPE_PREFIX}audit.export.ended.v1"
"""The type of the last line. An export without it was cut short."""
_CHUNK = 64 << 10


class ExportFormat(StrEnum):
    """What a line is: a structured CloudEvent, or an event of the OCSF schema."""

    CLOUDEVENTS = "cloudevents"
    OCSF = "ocsf"


@dataclass(frozen=True, slots=True)
class Proofs:
    """Where the proofs of lines are looked up, and the checkpoint that all of them lead to."""

    lookup: LogLookup
    checkpoint: StoredCheckpoint

    async def of(self, tenant_id: str, page: Sequence[AuditEntry]) -> dict[UUID, Entry]:
        return await self.lookup.entries(tenant_id, [entry.event.id for entry in page], self.checkpoint.size)


async def lines(
    search: AuditSearch,
    tenant_id: str,
    wanted: AuditFilter,
    proofs: Proofs | None = None,
    form: ExportFormat = ExportFormat.CLOUDEVENTS,
) -> AsyncIterator[bytes]:
    """JSON Lines, oldest first, in pieces of about `_CHUNK` bytes: memory stays the same however long it gets. `count`
    and `sha256` are those of all lines before the last, line ends included."""
    digest, count, piece = sha256(), 0, bytearray()
    async for page in search.pages(tenant_id, wanted):
        proved = {} if proofs is None else await proofs.of(tenant_id, page)
        for entry in page:
            event = cloud_event(entry)
            if proofs is not None:
                event |= proving(entry.event, proved.get(entry.event.id))
            line = _line(event, form, with_proof=proofs is not None)
            digest.update(line)
            count += 1
            piece += line
            if len(piece) >= _CHUNK:
                yield bytes(piece)
                piece.clear()
    ended = {"count": count, "sha256": digest.hexdigest(), "filter": wanted.text()}
    last = _ended(tenant_id, ended if proofs is None else ended | {"checkpoint": proofs.checkpoint.note})
    shown = ocsf_ended(last) if form is ExportFormat.OCSF else last
    yield bytes(piece) + orjson.dumps(shown, option=orjson.OPT_APPEND_NEWLINE)


def _line(event: dict[str, Any], form: ExportFormat, *, with_proof: bool) -> bytes:
    if form is ExportFormat.OCSF:
        return rendering(event, proving=with_proof)
    return orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)


def _ended(tenant_id: str, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": str(clock.new_uuid()),
        "source": f"/tenants/{tenant_id}/audit",
        "type": ENDED,
        "time": instant(clock.now()),
        "datacontenttype": "application/json",
        "data": data,
    }
