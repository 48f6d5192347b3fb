"""Checkpoints kept in a topic that keeps everything: each a record whose value is the note.

They leave by the outbox, as all messages do. What the topic says is read from the topic itself, so that a log taken
back together with all rows that tell of it is still held against what was published.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime

import orjson

from codeagent.broker.connection import KafkaConnection
from codeagent.broker.reading import read_back, read_topic
from codeagent.broker.topics import AUDIT_CHECKPOINTS
from codeagent.eventlog.database import Database
from codeagent.messages.checkpoints import checkpoint_envelope, checkpoint_headers
from codeagent.transparency import tables
from codeagent.transparency.anchors import Look
from codeagent.transparency.checkpoints import Checkpoint
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.witnesses import Found, heard

_LOOKED_AT = 100
"""Checkpoints at the topic's end of which the longest is taken: relays that work at once may publish out of order."""
_PAGE = 500
"""Records that are read at once, for as long as there are fewer checkpoints among them."""


class TopicAnchor:
    """An `Anchor` in `topic`."""

    target = "topic"

    def __init__(self, database: Database, connection: KafkaConnection, topic: str = AUDIT_CHECKPOINTS) -> None:
        self._database = database
        self._connection = connection
        self._topic = topic

    async def newest(self, keys: LogKeys) -> Checkpoint | None:
        look = Look(self.target, keys)
        async with aclosing(read_back(self._connection, self._topic, _PAGE)) as pages:
            async for page in pages:
                for record in reversed(page):
                    if look.sound < _LOOKED_AT:
                        look.take(_place(record.partition, record.offset), _text(record.value))
                if look.sound >= _LOOKED_AT:
                    break
        return look.end()

    async def keep(self, checkpoint: tables.StoredCheckpoint) -> None:
        origin = checkpoint.note.partition("\n")[0]
        envelope = checkpoint_envelope(checkpoint.note, origin, checkpoint.sealed_at)
        headers = {name: value.decode() for name, value in checkpoint_headers(envelope)}
        await tables.publish(
            self._database, envelope.id, self._topic, origin, orjson.dumps(headers).decode(), checkpoint.note.encode()
        )

    async def delay_seconds(self) -> float:
        return await tables.unpublished_seconds(self._database, self._topic)


async def published_witnesses(
    connection: KafkaConnection, keys: LogKeys, topic: str = AUDIT_CHECKPOINTS
) -> AsyncIterator[Found]:
    """Every checkpoint that the topic keeps, in its order. Raises `Unavailable`."""
    async for record in read_topic(connection, topic):
        yield heard(_place(record.partition, record.offset), _text(record.value), keys, _moment(record.stored_ms))


def _place(partition: int, offset: int) -> str:
    return f"record {partition}/{offset} of the topic"


def _moment(milliseconds: int) -> datetime | None:
    """None for what whoever has sent a record says that is none."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
