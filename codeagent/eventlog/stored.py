"""An event as it is stored, before and after the log has taken it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from codeagent.errors import Unreadable
from codeagent.eventlog.database import Row
from codeagent.eventlog.hashing import canonical_json, digest_of, leaf_hash
from codeagent.messages.catalog import decode_data, encode_data
from codeagent.messages.envelope import Envelope, Event, instant
from codeagent.messages.personal import without_content
from codeagent.subjects.key import SubjectKey


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One fact of one stream. `global_position` is 0 until it has been read back from the log.

    Where `key_id` names a subject's key, what is personal is in `sealed` and the rest in `public`, and `data` is the
    whole once it was opened (`sealing.open_events`); of an event that is `erased` there is only the rest.
    """

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
    damage: str = ""
    """What is wrong with the row itself, so that its event cannot be read."""
    public: bytes | None = None
    sealed: bytes | None = None
    sealed_digest: bytes | None = None
    erased: bool = False
    unopened: bool = False
    locked: str = ""
    """Why its sealed content could not be opened; what is stored may be sound."""
    late: tuple[str, bytes] | None = None
    """Of a fact whose subject was being erased: the id of their key, and the data that it is recorded without."""

    def decode(self) -> Event:
        """The fact in its current version. Raises `Unreadable`."""
        if self.event is not None:
            return self.event
        self._check()
        decoded = decode_data(self.type, self.schema_version, self.data)
        if not isinstance(decoded, Event):
            raise Unreadable(f"{self.type} is no event", code="unknown_type")
        return decoded

    @property
    def kept(self) -> bytes:
        """The data as the row has it."""
        return self.data if self.public is None else self.public

    def _check(self) -> None:
        if self.unopened:
            raise RuntimeError("an event was read and not opened")
        if self.damage or self.locked:
            raise Unreadable(self.damage or self.locked, code="corrupt_row")

    def envelope(self) -> Envelope:
        """As it travels. Raises `Unreadable` where the row does not tell enough."""
        self._check()
        meta = self.metadata
        try:
            correlation = UUID(meta["correlationid"])
            causation = UUID(meta["causationid"]) if "causationid" in meta else None
        except (KeyError, ValueError):
            raise Unreadable("its metadata does not tell what it belongs to", code="corrupt_row") from None
        return Envelope(
            id=self.id,
            name=self.type,
            version=self.schema_version,
            source=f"/tenants/{self.tenant_id}/streams/{self.stream_id}",
            time=self.occurred_at,
            tenant_id=self.tenant_id,
            key=meta.get("runid", self.stream_id),
            correlation_id=correlation,
            causation_id=causation,
            sequence=self.version,
            actor_type=meta.get("authtype", "system"),
            actor_id=meta.get("authid", "system"),
            traceparent=meta.get("traceparent"),
            leaf_hash=self.leaf_hash.hex(),
        )

    def document(self) -> dict[str, Any]:
        """The data as plain JSON values. Raises `Unreadable`."""
        self._check()
        try:
            document = orjson.loads(self.data)
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, dict):
            raise Unreadable("its data is no JSON object", code="invalid_payload")
        return document


def prepare(
    event: Event,
    *,
    stream_id: str,
    version: int,
    event_id: UUID,
    tenant_id: str,
    occurred_at: datetime,
    metadata: Mapping[str, str],
    key: SubjectKey | None = None,
) -> StoredEvent:
    """An event ready to be appended, hashed; what is personal in it is sealed with `key`, or left out if that does not
    seal any more."""
    data, late = encode_data(event), None
    public = None if key is None else without_content(event)
    if key is not None and public is not None and not key.seals:
        late, data, public = (key.id, data), public, None
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
        event=event if late is None else None,
        late=late,
    )
    if key is not None and public is not None:
        sealed = key.seal(data, place_of(event_id))
        unhashed = replace(unhashed, key_id=key.id, public=public, sealed=sealed, sealed_digest=digest_of(sealed))
        unhashed = replace(unhashed, data_digest=stored_digest(unhashed))
    return replace(unhashed, leaf_hash=leaf_of(unhashed))


def place_of(event_id: UUID) -> str:
    """Where an event's sealed content belongs."""
    return f"events/{event_id}"


def stored_digest(event: StoredEvent) -> bytes:
    """The digest of what the row has. It commits to the digest of sealed content, not to that content, so that this can
    be taken away for good and the rest still be checked."""
    return digest_of(event.kept + (event.sealed_digest or b""))


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


_IN_PLACE_OF_NONE: Mapping[str, Any] = {
    "stream_id": "",
    "stream_version": 0,
    "event_id": UUID(int=0),
    "event_type": "",
    "schema_version": 0,
    "tenant_id": "",
    "transaction_id": "0",
    "data_digest": b"",
    "occurred_at": datetime(1970, 1, 1, tzinfo=UTC),
}
"""What stands for a value that is none, in columns of which every event has one."""


def from_row(row: Row) -> StoredEvent:
    """A row is read whatever is in it: what no event can have is left out, and told as damage by its column's name."""
    metadata = _metadata(row["metadata"])
    values = {name: row[name] for name in _IN_PLACE_OF_NONE}
    damage = "" if metadata is not None else "its metadata is no object of texts"
    if lost := [name for name, value in values.items() if value is None]:
        values |= {name: _IN_PLACE_OF_NONE[name] for name in lost}
        damage = f"its {', '.join(lost)} is none that an event can have"
    return StoredEvent(
        stream_id=values["stream_id"],
        version=values["stream_version"],
        id=values["event_id"],
        type=values["event_type"],
        schema_version=values["schema_version"],
        tenant_id=values["tenant_id"],
        data=row["data"] or b"",
        data_digest=values["data_digest"],
        metadata=metadata or {},
        occurred_at=values["occurred_at"],
        leaf_hash=row["leaf_hash"] or b"",
        key_id=row["key_id"],
        public=None if row["key_id"] is None else row["data"] or b"",
        sealed=row["sealed"],
        sealed_digest=row["sealed_digest"],
        unopened=row["key_id"] is not None,
        global_position=row["global_position"],
        transaction_id=int(values["transaction_id"]),
        damage=damage,
    )


def _metadata(text: str | None) -> dict[str, str] | None:
    """None for what is no metadata of ours."""
    try:
        found = orjson.loads(text or "")
    except orjson.JSONDecodeError:  # also for what is nested too deep, or a number beyond all bounds
        return None
    sound = isinstance(found, dict) and all(isinstance(value, str) for value in found.values())
    return found if sound else None
