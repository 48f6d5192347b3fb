"""What every place for checkpoints promises, wherever it keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest

from codeagent import clock
from codeagent.broker.admin import TopicAdmin, Wanted
from codeagent.broker.connection import KafkaConnection
from codeagent.broker.publisher import Publisher
from codeagent.broker.reading import read_topic
from codeagent.embedded.broker import EmbeddedBroker
from codeagent.errors import Unavailable
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import Cursor, EventLog
from codeagent.eventlog.sweep import Sweeper
from codeagent.relay.outbox import OutboxPublisher
from codeagent.telemetry import metrics
from codeagent.transparency.anchors import Anchor
from codeagent.transparency.checkpoints import Checkpoint
from codeagent.transparency.directory import DirectoryAnchor, anchor_files
from codeagent.transparency.notes import SigningKey
from codeagent.transparency.tables import StoredCheckpoint
from codeagent.transparency.topic import TopicAnchor
from tests.integration.transparency.sealed import FOREIGN_KEY, KEY, KEYS, ORIGIN
from tests.services.kafka import ApacheKafka

Settle = Callable[[], Awaitable[object]]


@dataclass
class Place:
    """An anchor, what carries to it what was committed, all notes that are there, and the same one out of reach."""

    anchor: Anchor
    settle: Settle
    notes: Callable[[], Awaitable[list[str]]]
    away: Anchor

    async def keep(self, *checkpoints: StoredCheckpoint) -> None:
        for each in checkpoints:
            await self.anchor.keep(each)
            await self.settle()


def signed(size: int, *, key: SigningKey = KEY, root: bytes = b"") -> StoredCheckpoint:
    hashed = sha256(root or str(size).encode()).digest()
    note = Checkpoint(ORIGIN, size, hashed).signed([key])
    return StoredCheckpoint(1, size, hashed, note, Cursor(), clock.now())


async def nothing() -> None:
    """What is kept at once needs nobody to carry it."""


def directory(folder: Path) -> Place:
    (folder / "file").write_text("")

    async def notes() -> list[str]:
        return [path.read_text() for path in anchor_files(folder / "kept")]

    return Place(DirectoryAnchor(folder / "kept"), nothing, notes, DirectoryAnchor(folder / "file" / "kept"))


@asynccontextmanager
async def topic(url: str, broker: EmbeddedBroker | ApacheKafka) -> AsyncIterator[Place]:
    """A topic of its own on a real broker, and the relay that sends what the outbox has."""
    idempotent = isinstance(broker, ApacheKafka)
    connection = KafkaConnection(broker.bootstrap_servers, "test", idempotent=idempotent, fetch_wait_ms=20)
    name = f"test.{uuid4().hex}.v1"
    await TopicAdmin(connection, replication=1, configurable=False).apply([Wanted(name, 1, {})])
    database, publisher = Database(url, connections=2), Publisher(connection)
    await publisher.start()
    sweeper = Sweeper(database)
    outbox = OutboxPublisher(publisher, sweeper, EventLog(database))

    async def settle() -> None:
        async with asyncio.timeout(30):
            while (await sweeper.pending())[0]:
                await outbox.sweep()
                await asyncio.sleep(0.01)

    async def notes() -> list[str]:
        return [record.value.decode() async for record in read_topic(connection, name)]

    away = TopicAnchor(database, replace(connection, bootstrap_servers="127.0.0.1:1"), name)
    yield Place(TopicAnchor(database, connection, name), settle, notes, away)
    await outbox.stop()
    await publisher.stop()
    await database.close()


@pytest.fixture(params=["directory", "embedded_broker", "apache_kafka"])
def broker(request: pytest.FixtureRequest) -> EmbeddedBroker | ApacheKafka | None:
    """None for a directory."""
    if request.param == "directory":
        return None
    found: EmbeddedBroker | ApacheKafka = request.getfixturevalue(request.param)
    if not found.is_alive():
        found.restart()
    return found


@pytest.fixture
async def place(
    broker: EmbeddedBroker | ApacheKafka | None, newest_database_url: str, tmp_path: Path
) -> AsyncIterator[Place]:
    if broker is None:
        yield directory(tmp_path)
        return
    async with topic(newest_database_url, broker) as found:
        yield found


async def test_what_is_kept_is_the_note_as_it_was_signed_and_the_longest_is_found(place: Place) -> None:
    assert await place.anchor.newest(KEYS) is None
    kept = [signed(size) for size in (3, 5, 900)]
    await place.keep(*kept)
    assert await place.notes() == [each.note for each in kept]
    assert await place.anchor.newest(KEYS) == Checkpoint(ORIGIN, 900, kept[-1].root)
    assert await place.anchor.delay_seconds() == 0


async def test_nothing_that_is_kept_is_ever_replaced(place: Place) -> None:
    first, other = signed(7), signed(7, root=b"another")
    await place.keep(first, other)
    assert (await place.notes())[0] == first.note
    assert await place.anchor.newest(KEYS) == Checkpoint(ORIGIN, 7, first.root)


async def test_relays_that_keep_the_same_one_at_once_do_no_harm(place: Place) -> None:
    checkpoint = signed(7)
    await asyncio.gather(*(place.anchor.keep(checkpoint) for _ in range(5)))
    await place.settle()
    assert set(await place.notes()) == {checkpoint.note}


async def test_what_another_key_has_signed_is_passed_by(place: Place) -> None:
    ours = signed(4)
    await place.keep(ours, signed(9, key=FOREIGN_KEY))
    assert len(await place.notes()) == 2
    assert await place.anchor.newest(KEYS) == Checkpoint(ORIGIN, 4, ours.root)


async def test_no_amount_of_what_vouches_for_nothing_hides_a_checkpoint(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codeagent.transparency.topic._LOOKED_AT", 5)
    monkeypatch.setattr("codeagent.transparency.topic._PAGE", 20)
    ours = signed(4)
    await place.keep(signed(3), ours)
    for size in range(10, 75):
        await place.anchor.keep(signed(size, key=FOREIGN_KEY))
    await place.settle()
    assert len(await place.notes()) == 67
    assert await place.anchor.newest(KEYS) == Checkpoint(ORIGIN, 4, ours.root)
    assert metrics.AUDIT_JUNK.labels(place.anchor.target)._value.get() == 65
    await place.keep(*(later := [signed(size) for size in range(80, 86)]))
    assert await place.anchor.newest(KEYS) == Checkpoint(ORIGIN, 85, later[-1].root)
    assert metrics.AUDIT_JUNK.labels(place.anchor.target)._value.get() == 0


async def test_a_place_that_cannot_be_reached_says_so(place: Place) -> None:
    with pytest.raises(Unavailable):
        await place.away.newest(KEYS)
        await place.away.keep(signed(1))
