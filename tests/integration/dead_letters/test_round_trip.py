"""From a consumer that fails to an operator and back, on a real broker and a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest

from codeagent import clock
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.broker.admin import TopicAdmin, Wanted
from codeagent.broker.connection import KafkaConnection
from codeagent.broker.consumer import GroupConsumer
from codeagent.broker.dead_letters import origins
from codeagent.broker.delivery import Delivery, HandleMessage
from codeagent.broker.lanes import Record
from codeagent.broker.publisher import Publisher
from codeagent.broker.topics import RUN_EVENTS, TopicDefinition, dead_letter_topic
from codeagent.dead_letters.letter import DeadLetter, LetterState
from codeagent.embedded.broker import EmbeddedBroker
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.sweep import Sweeper
from codeagent.messages.catalog import encode_data
from codeagent.messages.envelope import Message, to_headers
from codeagent.messages.ids import run_stream
from codeagent.relay.dead_letters import DeadLetterKeeper
from codeagent.relay.outbox import OutboxPublisher
from codeagent.workers.step import StepLoop
from tests.integration.dead_letters.conftest import Desk
from tests.integration.dead_letters.records import BOX, OPERATOR
from tests.integration.mcp.host import Host, serving
from tests.integration.mcp.test_performer import asked, worker
from tests.integration.workers.system import Bench, Mailbox, answered

GROUP = "agent-worker"


@dataclass
class Plant:
    """A topic of runs' commands with a worker, and what the relay does about it. `worker` may be replaced."""

    desk: Desk
    connection: KafkaConnection
    publisher: Publisher
    topic: str
    outbox: OutboxPublisher
    handle: HandleMessage
    keeper: DeadLetterKeeper
    handled: list[Message] = field(default_factory=list)

    async def worked(self, message: Message) -> None:
        await self.handle(message)
        self.handled.append(message)

    async def send(self, message: Message, value: bytes | None = None) -> None:
        body = encode_data(message.data) if value is None else value
        await self.publisher.send(self.topic, message.envelope.key, to_headers(message.envelope), body)

    async def letters(self, count: int) -> list[DeadLetter]:
        """Once there are so many."""
        async with asyncio.timeout(20):
            while len(found := await self.desk.all()) < count:
                await asyncio.sleep(0.05)
        return found

    async def swept(self, until: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(20):
            while not await until():
                await self.outbox.sweep()
                await asyncio.sleep(0.05)


@asynccontextmanager
async def consuming(plant: Plant) -> AsyncIterator[None]:
    """A worker, and the relay's reader of what it could not handle."""
    delivery = Delivery(plant.publisher, group=GROUP, handle=plant.worked, attempts=2, first_delay_seconds=0.01)
    consumers = [
        GroupConsumer(plant.connection, [topic], group=f"{group}-{plant.topic}", handle=handle)
        for topic, group, handle in (
            (plant.topic, GROUP, delivery),
            (dead_letter_topic(plant.topic, GROUP), "dead-letters", plant.keeper),
        )
    ]
    for consumer in consumers:
        await consumer.start()
    yield
    for consumer in consumers:
        await consumer.stop()


@pytest.fixture
async def plant(embedded_broker: EmbeddedBroker, desk: Desk) -> AsyncIterator[Plant]:
    topic = f"test.{uuid4().hex}.v1"
    connection = KafkaConnection(
        embedded_broker.bootstrap_servers,
        "test",
        idempotent=False,
        fetch_wait_ms=20,
        timeout_seconds=3.0,
        session_timeout_ms=6_000,
        sole_member=True,
    )
    admin = TopicAdmin(connection, replication=1, configurable=False)
    await admin.apply([Wanted(topic, 2, {}), Wanted(dead_letter_topic(topic, GROUP), 1, {}), Wanted(RUN_EVENTS, 1, {})])
    publisher = Publisher(connection)
    await publisher.start()
    outbox = OutboxPublisher(publisher, Sweeper(desk.database), EventLog(desk.database))
    loop = StepLoop(desk.database, EventLog(desk.database), Mailbox(), events_topic=RUN_EVENTS)
    definition = TopicDefinition(
        name=topic,
        description="",
        key="run_id",
        partitions={"dev": 2, "medium": 2, "large": 2},
        config={},
        messages=(),
        writers=(),
        readers=(GROUP,),
        dead_letters=True,
    )
    keeper = DeadLetterKeeper(desk.database, BOX, origins([definition]))
    made = Plant(desk, connection, publisher, topic, outbox, loop.handle, keeper)
    async with consuming(made):
        yield made
    await outbox.stop()
    await publisher.stop()


async def names(database: Database, run_id: str) -> list[str]:
    return [event.type for event in await EventLog(database).read_stream(run_stream(run_id))]


async def test_a_poisonous_record_ends_as_a_row_is_looked_at_and_discarded(plant: Plant) -> None:
    poison = Bench(plant.desk.database).submit()
    await plant.send(poison, b"\x00 this is no JSON")
    [letter] = await plant.letters(1)
    assert (letter.topic, letter.consumer_group, letter.error_type) == (plant.topic, GROUP, "invalid_payload")
    assert (await plant.desk.letters.read(OPERATOR, letter)).value == b"\x00 this is no JSON"
    gone = await plant.desk.letters.discard(OPERATOR, letter, "no JSON")
    assert (gone.state, gone.kept) == (LetterState.DISCARDED, False)
    assert plant.handled == []


async def test_an_order_that_failed_by_a_bug_is_carried_out_after_the_fix_and_then_recognised(plant: Plant) -> None:
    """The run goes on from the record that was sent again; sent a third time it changes nothing."""

    async def buggy(message: Message) -> None:
        raise ValueError("a bug")

    database, right, plant.handle = plant.desk.database, plant.handle, buggy
    submit = Bench(database).submit()
    await plant.send(submit)
    [letter] = await plant.letters(1)
    assert (letter.error_type, letter.attempts) == ("ValueError", 2)
    plant.handle = right
    sent = await plant.desk.letters.redrive(OPERATOR, letter)

    async def goes_on() -> bool:
        return len(plant.handled) == 1

    await plant.swept(goes_on)
    assert [message.envelope.id for message in plant.handled] == [submit.envelope.id], "the same record"
    begun = await names(database, submit.envelope.key)
    assert begun[:2] == ["run.submitted", "run.started"]
    await plant.desk.letters.redrive(OPERATOR, sent, again=True)

    async def came_again() -> bool:
        return len(plant.handled) == 2

    await plant.swept(came_again)
    assert await names(database, submit.envelope.key) == begun
    assert [each.id for each in await plant.desk.all()] == [letter.id]


async def test_a_call_of_a_tool_that_failed_by_a_bug_is_made_after_the_fix_and_not_once_more(
    plant: Plant, tmp_path: Path
) -> None:
    """Sent a third time it changes nothing: the server is not asked again."""

    async def buggy(message: Message) -> None:
        raise ValueError("a bug")

    bench, plant.handle = Bench(plant.desk.database), buggy
    async with serving(Host()) as host:
        agent, loop = bench.agent(), worker(bench, host, LocalArtifactStore(tmp_path))
        command = await asked(bench, host, agent, text="x")
        await plant.send(command)
        [letter] = await plant.letters(1)
        plant.handle = loop.handle
        sent = await plant.desk.letters.redrive(OPERATOR, letter)

        async def has_answered() -> bool:
            return bool(bench.mailbox.answers)

        async def came_again() -> bool:
            return len(plant.handled) == 2

        await plant.swept(has_answered)
        await plant.desk.letters.redrive(OPERATOR, sent, again=True)
        await plant.swept(came_again)
        await loop.drain(1)
        assert (host.called, plant.handled) == (["x"], [command, command])
    [answer] = bench.mailbox.answers
    await agent.handle(answered(answer))
    assert "tool.call.completed" in await bench.names()


async def test_what_is_sent_again_is_sent_once_even_where_nobody_can_read_it(plant: Plant) -> None:
    """Else a poisonous record would come back with every sweep."""
    await plant.send(Bench(plant.desk.database).submit(), b"poison")
    [letter] = await plant.letters(1)
    await plant.desk.letters.redrive(OPERATOR, letter)

    async def is_gone() -> bool:
        return not await plant.desk.database.fetch("SELECT 1 FROM outbox")

    await plant.swept(is_gone)
    second, first = await plant.letters(2)
    assert (first.id, first.state, second.state) == (letter.id, LetterState.REDRIVEN, LetterState.OPEN)
    assert await plant.desk.letters.read(OPERATOR, second) == await plant.desk.letters.read(OPERATOR, first)


async def test_the_largest_record_with_its_reason_beside_it_still_finds_its_way(plant: Plant) -> None:
    message = Bench(plant.desk.database).submit()
    room = sum(len(name) + len(value) + 8 for name, value in to_headers(message.envelope)) + 200
    await plant.send(message, b"x" * (1_048_576 - room))
    [letter] = await plant.letters(1)
    assert letter.value_bytes == 1_048_576 - room


async def test_a_relay_that_reads_all_of_the_topic_again_makes_no_second_row(plant: Plant) -> None:
    await plant.send(Bench(plant.desk.database).submit(), b"poison")
    [letter] = await plant.letters(1)
    topic, seen = dead_letter_topic(plant.topic, GROUP), []

    async def noting(record: Record) -> None:
        await plant.keeper(record)
        seen.append(record)

    again = GroupConsumer(plant.connection, [topic], group=f"another-{clock.new_uuid()}", handle=noting)
    await again.start()
    async with asyncio.timeout(20):
        while not seen:
            await asyncio.sleep(0.05)
    await again.stop()
    assert [each.id for each in await plant.desk.all()] == [letter.id]
