"""Events that cannot be read: named, so that somebody sees to them, and passed over, so that all others are read."""

from __future__ import annotations

from codeagent.errors import Unreadable
from codeagent.eventlog.stored import StoredEvent
from codeagent.messages.envelope import Event
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)


def readable(stored: StoredEvent, reader: str) -> Event | None:
    """The fact; None, and a line in the log, where it cannot be read. `reader` is who goes on without it."""
    try:
        return stored.decode()
    except Unreadable as error:
        name_unreadable(stored, reader, error)
        return None


def name_unreadable(stored: StoredEvent, reader: str, error: Unreadable) -> None:
    log.error(
        "event.unreadable",
        reader=reader,
        stream_id=stored.stream_id,
        version=stored.version,
        event_id=str(stored.id),
        code=error.code,
        error=error.detail,
    )
