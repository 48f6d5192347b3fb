"""Whose content an event holds, and opening what was sealed under their keys."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson

from codeagent.errors import Unavailable, Unreadable
from codeagent.eventlog.stored import StoredEvent, place_of
from codeagent.messages.catalog import encode_data
from codeagent.messages.commands import SubmitRun
from codeagent.messages.envelope import Event, Payload
from codeagent.messages.personal import without_content
from codeagent.subjects.key import KEY_MISSING, Erased, NotOpenedBySubject, SubjectKey, named_key
from codeagent.subjects.keys import SubjectKeys


def subject_of(event: Event, owner: str) -> str:
    """Whoever is named as the one who said it, else the `owner` of the stream."""
    return str(getattr(event, "principal", owner))


async def open_events(keys: SubjectKeys, events: Sequence[StoredEvent]) -> list[StoredEvent]:
    """The events with all that can be read of them. Raises `Unavailable` where the keys cannot be looked up."""
    named = {event.key_id for event in events if event.unopened and event.key_id is not None and event.sealed}
    found = await keys.named(named) if named else {}
    return [_opened(event, found.get(event.key_id or "")) if event.unopened else event for event in events]


def require_keys(events: Sequence[StoredEvent]) -> None:
    """Raises `Unavailable` (`key_missing`) where the store does not know the key of an event: it is more likely another
    log's store than that the key is gone. Of content that its key does not open nothing is said."""
    for event in events:
        if event.locked == KEY_MISSING:
            raise Unavailable(
                f"event {event.id}: {KEY_MISSING}: are these the settings of this log?", code="key_missing"
            )


def sealed_value(key: SubjectKey | None, payload: Payload, place: str) -> bytes:
    """A message's JSON as a ledger keeps it: sealed where it says anything personal, and without that where the key
    does not seal any more."""
    data = encode_data(payload)
    public = None if key is None else without_content(payload)
    if key is None or public is None:
        return data
    return key.seal_named(data, place) if key.seals else public


def sealed_request(key: SubjectKey | None, command: SubmitRun) -> str:
    """A submission's command as JSON text, which is `{"sealed": base64}` where it is sealed."""
    value = sealed_value(key, command, request_place(command.run_id))
    if named_key(value) is None:
        return value.decode()
    return orjson.dumps({"sealed": b64encode(value).decode()}).decode()


def effect_place(effect_id: UUID) -> str:
    """Where the sealed command of an effect belongs."""
    return f"effects/{effect_id}"


def memo_place(effect_id: UUID) -> str:
    return f"memos/{effect_id}"


def outbox_place(row_id: UUID) -> str:
    return f"outbox/{row_id}"


def request_place(run_id: str) -> str:
    return f"submissions/{run_id}"


async def open_request(keys: SubjectKeys, run_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """The other way round. Raises `Erased`."""
    sealed = request.get("sealed")
    if sealed is None:
        return request
    place = request_place(run_id)
    opened = (await keys.open_named({place: b64decode(sealed)}))[place]
    if opened is None:
        raise Erased
    found: dict[str, Any] = orjson.loads(opened)
    return found


def _opened(event: StoredEvent, key: SubjectKey | None) -> StoredEvent:
    if event.sealed is None or key is None:
        return replace(event, unopened=False, erased=True)
    try:
        return replace(event, unopened=False, data=key.open(event.sealed, place_of(event.id)))
    except Erased:
        return replace(event, unopened=False, erased=True)
    except (NotOpenedBySubject, Unreadable) as error:
        return replace(event, unopened=False, locked=error.detail)
