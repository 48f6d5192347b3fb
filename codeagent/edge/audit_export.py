"""The audit as a file: one CloudEvent a line, and a last one that tells how many there were and their digest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256

import orjson

from codeagent import clock
from codeagent.edge.audit_models import cloud_event
from codeagent.messages.envelope import TYPE_PREFIX, instant
from codeagent.projections.audit_search import AuditFilter, AuditSearch

ENDED = f"{TYPE_PREFIX}audit.export.ended.v1"
"""The type of the last line. An export without it was cut short."""
_CHUNK = 64 << 10


async def lines(search: AuditSearch, tenant_id: str, wanted: AuditFilter) -> AsyncIterator[bytes]:
    """JSON Lines, oldest first, in pieces of about `_CHUNK` bytes: memory stays the same however long it gets. `count`
    and `sha256` are those of all lines before the last, line ends included."""
    digest, count, piece = sha256(), 0, bytearray()
    async for entry in search.oldest(tenant_id, wanted):
        line = orjson.dumps(cloud_event(entry), option=orjson.OPT_APPEND_NEWLINE)
        digest.update(line)
        count += 1
        piece += line
        if len(piece) >= _CHUNK:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece) + _ended(tenant_id, wanted, count, digest.hexdigest())


def _ended(tenant_id: str, wanted: AuditFilter, count: int, digest: str) -> bytes:
    event = {
        "specversion": "1.0",
        "id": str(clock.new_uuid()),
        "source": f"/tenants/{tenant_id}/audit",
        "type": ENDED,
        "time": instant(clock.now()),
        "datacontenttype": "application/json",
        "data": {"count": count, "sha256": digest, "filter": wanted.text()},
    }
    return orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
