"""An event as it is stored, before and after the log has taken it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from codeagent.eventlog.database import Row
from codeagent.eventlog.hashing import canonical_json, digest_of, leaf_hash
from codeagent.messages.catalog import decode_data, encode_data
from codeagent.messages.envelope import Envelope, Event, instant


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One fact of one stream. `global_position` is 0 until it has been read back from the log."""

    stream_id: str
    version: int
    id: UUID
    type: str
    schema_version: int
    tenant_id: str
    data: bytes
    data_digest: bytes
    metadata: Mapping[str, str]
    occurred_at: datetime
    leaf_hash: bytes
    key_id: str | None = None
    global_position: int = 0
    transaction_id: int = 0
    event: Event | None = None

    def decode(self) -> Event:
        """The fact in its current version. Raises `Unreadable`."""
        if self.event is not None:
            return self.event
        decoded = decode_data(self.type, self.schema_version, self.data)
        assert isinstance(decoded, Event)
        return decoded

    def envelope(self) -> Envelope:
        meta = self.metadata
        causation = meta.get("causationid")
        return Envelope(
            id=self.id,
            name=self.type,
            version=self.schema_version,
            source=f"/tenants/{self.tenant_id}/streams/{self.stream_id}",
            time=self.occurred_at,
            tenant_id=self.tenant_id,
            key=meta.get("runid", self.stream_id),
            correlation_id=UUID(meta["correlationid"]),
            causation_id=None if causation is None else UUID(causation),
            sequence=self.version,
            actor_type=meta.get("authtype", "system"),
            actor_id=meta.get("authid", "system"),
            traceparent=meta.get("traceparent"),
            leaf_hash=self.leaf_hash.hex(),
        )

    def document(self) -> Any:
        """The data as plain JSON values."""
        return orjson.loads(self.data)


def prepare(
    event: Event,
    *,
    stream_id: str,
    version: int,
    event_id: UUID,
    tenant_id: str,
    occurred_at: datetime,
    metadata: Mapping[str, str],
) -> StoredEvent:
    """An event ready to be appended, hashed."""
    data = encode_data(event)
    unhashed = StoredEvent(
        stream_id=stream_id,
        version=version,
        id=event_id,
        type=event.NAME,
        schema_version=event.VERSION,
        tenant_id=tenant_id,
        data=data,
        data_digest=digest_of(data),
        metadata=metadata,
        occurred_at=occurred_at,
        leaf_hash=b"",
        event=event,
    )
    return replace(unhashed, leaf_hash=leaf_of(unhashed))


def leaf_of(event: StoredEvent) -> bytes:
    """The leaf hash that belongs to an event. It commits to the digest of the stored bytes, not to the bytes,
    so that data can be erased and the hash still be checked."""
    return leaf_hash(
        {
            "data_digest": event.data_digest.hex(),
            "event_id": str(event.id),
            "event_type": event.type,
            "key_id": event.key_id,
            "metadata_digest": digest_of(canonical_json(event.metadata)).hex(),
            "occurred_at": instant(event.occurred_at),
            "schema_version": event.schema_version,
            "stream_id": event.stream_id,
            "stream_version": event.version,
            "tenant_id": event.tenant_id,
        }
    )


def metadata_for(envelope: Envelope, run_id: str) -> dict[str, str]:
    """What an event remembers of the message that led to it."""
    metadata = {
        "runid": run_id,
        "correlationid": str(envelope.correlation_id),
        "causationid": str(envelope.id),
        "authtype": envelope.actor_type,
        "authid": envelope.actor_id,
    }
    if envelope.traceparent is not None:
        metadata["traceparent"] = envelope.traceparent
    return metadata


def from_row(row: Row) -> StoredEvent:
    return StoredEvent(
        stream_id=row["stream_id"],
        version=row["stream_version"],
        id=row["event_id"],
        type=row["event_type"],
        schema_version=row["schema_version"],
        tenant_id=row["tenant_id"],
        data=row["data"] or b"",
        data_digest=row["data_digest"],
        metadata=orjson.loads(row["metadata"]),
        occurred_at=row["occurred_at"],
        leaf_hash=row["leaf_hash"],
        key_id=row["key_id"],
        global_position=row["global_position"],
        transaction_id=int(row["transaction_id"]),
    )
