"""What happens to records that cannot be handled: they are kept, named, and hold up nobody."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID

from codeagent import clock
from codeagent.broker.consumer import GroupConsumer
from codeagent.broker.delivery import Delivery
from codeagent.broker.topics import dead_letter_topic
from codeagent.errors import Unavailable
from codeagent.messages.catalog import encode_data
from codeagent.messages.commands import CancelRun
from codeagent.messages.envelope import Envelope, Headers, Message, to_headers
from tests.integration.broker.conftest import Bench, eventually, sole
from tests.services.kafka import ApacheKafka


def cancel(run_id: str) -> tuple[Headers, bytes]:
    command = CancelRun(run_id=run_id)
    envelope = Envelope(
        id=clock.new_uuid(),
        name=command.NAME,
        version=1,
        source="/test",
        time=clock.now(),
        tenant_id="ten_a",
        key=run_id,
        correlation_id=UUID(int=1),
    )
    return to_headers(envelope), encode_data(command)


class Handler:
    """Fails for chosen runs, for a while or for ever."""

    def __init__(self, failures: dict[str, list[Exception]] | None = None) -> None:
        self.handled: list[str] = []
        self.tried: list[str] = []
        self.failures = failures or {}

    async def __call__(self, message: Message) -> None:
        run_id = message.envelope.key
        self.tried.append(run_id)
        if self.failures.get(run_id):
            raise self.failures[run_id].pop(0)
        self.handled.append(run_id)


def consumer(bench: Bench, handler: Handler, **options: object) -> GroupConsumer:
    delivery = Delivery(bench.publisher, group=bench.group, handle=handler, **options)
    return GroupConsumer(sole(bench.connection), [bench.topic], group=bench.group, handle=delivery)


async def test_unreadable_records_are_dead_lettered_with_their_bytes_and_the_consumer_lives_on(bench: Bench) -> None:
    headers, value = cancel("run_a")
    unknown = [(n, b"io.codeagent.run.explode.v1" if n == "ce_type" else v) for n, v in headers]
    await bench.send("a", b"not json", headers)
    await bench.send("b", b"\xff\xfe", [("ce_type", b"\xff\xff")])
    await bench.send("c", value, unknown)
    await bench.send("d", b'{"run_id": "run_d", "surprise": 1}', headers)
    await bench.send("run_a", value, headers)
    handler = Handler()
    running = consumer(bench, handler)
    await running.start()
    letters = await bench.read(dead_letter_topic(bench.topic, bench.group), 4)
    await eventually(lambda: handler.handled == ["run_a"])
    await running.stop()
    facts = {record.key: dict(record.headers) for record in letters}
    assert {key: found["dlq-error-type"] for key, found in facts.items()} == {
        b"a": b"invalid_payload",
        b"b": b"malformed_envelope",
        b"c": b"unknown_type",
        b"d": b"invalid_payload",
    }
    assert {record.key: record.value for record in letters}[b"b"] == b"\xff\xfe"
    assert all(found["dlq-topic"] == bench.topic.encode() for found in facts.values())


async def test_a_bug_is_tried_a_bounded_number_of_times_then_given_up_and_dead_lettered(bench: Bench) -> None:
    handler = Handler({"run_bad": [ValueError("bug")] * 100})
    given_up: list[str] = []

    async def give_up(message: Message, error: Exception) -> None:
        given_up.append(f"{message.envelope.key} {type(error).__name__}")

    running = consumer(bench, handler, give_up=give_up, attempts=3, first_delay_seconds=0.01)
    await running.start()
    for run_id in ("run_bad", "run_good"):
        headers, value = cancel(run_id)
        await bench.send(run_id, value, headers)
    [letter] = await bench.read(dead_letter_topic(bench.topic, bench.group), 1)
    await eventually(lambda: handler.handled == ["run_good"])
    await running.stop()
    assert dict(letter.headers)["dlq-attempts"] == b"3"
    assert handler.tried.count("run_bad") == 3
    assert given_up == ["run_bad ValueError"]


async def test_what_is_unavailable_is_waited_for_and_never_dead_lettered(bench: Bench) -> None:
    handler = Handler({"run_a": [Unavailable("away")] * 12})
    running = consumer(bench, handler, attempts=2, first_delay_seconds=0.001)
    await running.start()
    headers, value = cancel("run_a")
    await bench.send("run_a", value, headers)
    await eventually(lambda: handler.handled == ["run_a"])
    await running.stop()
    assert handler.tried.count("run_a") == 13


async def test_a_run_in_trouble_keeps_its_order_and_holds_up_no_other(bench: Bench) -> None:
    handler = Handler({"run_a": [Unavailable("away")] * 5})
    running = consumer(bench, handler, first_delay_seconds=0.05)
    await running.start()
    for run_id in ("run_a", "run_a", *(f"run_{n}" for n in range(20))):
        headers, value = cancel(run_id)
        await bench.send(run_id, value, headers)
    await eventually(lambda: len(handler.handled) == 22)
    await running.stop()
    assert handler.handled.index("run_a") >= 19
    await asyncio.sleep(0)


async def test_a_record_that_comes_after_a_quiet_while_is_handled_at_once(bench: Bench) -> None:
    """Apache Kafka answers a waiting fetch when a record comes; whoever sleeps between two fetches is late."""
    wait_ms = 1_500 if isinstance(bench.broker, ApacheKafka) else bench.connection.fetch_wait_ms
    handler = Handler()
    delivery = Delivery(bench.publisher, group=bench.group, handle=handler)
    patient = replace(sole(bench.connection), fetch_wait_ms=wait_ms)
    reading = GroupConsumer(patient, [bench.topic], group=bench.group, handle=delivery)
    await reading.start()
    await eventually(lambda: reading.ready)
    await asyncio.sleep(2.1)  # past one fetch, in the middle of what would be a sleep
    headers, value = cancel("run_a")
    began = asyncio.get_running_loop().time()
    await bench.send("run_a", value, headers)
    await eventually(lambda: handler.handled == ["run_a"])
    assert asyncio.get_running_loop().time() - began < 0.6
    await reading.stop()
