"""What a consumer promises on every broker: whatever dies or moves, no record is lost and keys keep their order.

Records may come twice: whoever handles them recognises what it has handled.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import defaultdict

from aiokafka import ConsumerRecord

from codeagent.broker.admin import TopicAdmin, Wanted
from codeagent.broker.consumer import GroupConsumer
from codeagent.errors import Unavailable
from tests.integration.broker.conftest import Bench, eventually


class Seen:
    """Collects values as they are handled, in order within each key."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.values: list[str] = []
        self.by_key: dict[str, list[str]] = defaultdict(list)
        self._seconds = seconds

    async def __call__(self, record: ConsumerRecord) -> None:
        if self._seconds:
            await asyncio.sleep(self._seconds)
        self.values.append(record.value.decode())
        self.by_key[record.key.decode()].append(record.value.decode())


def member(bench: Bench, handle: Seen, **options: float) -> GroupConsumer:
    return GroupConsumer(bench.connection, [bench.topic], group=bench.group, handle=handle, **options)


async def ended_when_stuck(process: asyncio.subprocess.Process, stuck_at: str, most: int) -> set[str]:
    """What a crashing consumer has finished by the time it hangs in one record and has handled `most` others."""
    assert process.stdout is not None
    begun: set[str] = set()
    ended: set[str] = set()
    async with asyncio.timeout(40):
        while stuck_at not in begun or len(ended) < most:
            word, _, value = (await process.stdout.readline()).decode().strip().partition(" ")
            if word == "begin":
                begun.add(value)
            elif word == "end":
                ended.add(value)
    return ended


async def test_a_crash_in_the_middle_of_a_handler_loses_nothing(bench: Bench) -> None:
    for number in range(20):
        await bench.send(f"key{number % 5}", f"{number}".encode())
    arguments = [bench.connection.bootstrap_servers, bench.topic, bench.group, "7"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.broker.crashing_consumer", *arguments, stdout=subprocess.PIPE
    )
    try:
        ended = await ended_when_stuck(process, "7", 12)
    finally:
        process.kill()
        await process.wait()
    seen = Seen()
    successor = member(bench, seen)
    await successor.start()
    missing = {str(number) for number in range(20)} - ended
    await eventually(lambda: missing <= set(seen.values), 40)
    await successor.stop()


async def test_a_rebalance_in_the_middle_of_a_handler_loses_nothing_and_keeps_the_order_of_keys(bench: Bench) -> None:
    slow, late = Seen(0.05), Seen(0.05)
    first, second = member(bench, slow), member(bench, late)
    await first.start()
    await eventually(lambda: first.ready)
    for number in range(120):
        await bench.send(f"key{number % 12}", f"{number}".encode())
    await eventually(lambda: len(slow.values) > 5)
    await second.start()
    wanted = {str(number) for number in range(120)}
    await eventually(lambda: wanted <= {*slow.values, *late.values}, 60)
    await first.stop()
    await second.stop()
    for seen in (slow, late):
        for values in seen.by_key.values():
            firsts = list(dict.fromkeys(values))
            assert firsts == sorted(firsts, key=int)


async def test_a_handler_slower_than_the_session_keeps_its_partition_and_holds_up_no_other_key(bench: Bench) -> None:
    seen = Seen()
    release = asyncio.Event()

    async def handle(record: ConsumerRecord) -> None:
        if record.key == b"stuck":
            await release.wait()
        await seen(record)

    consumer = GroupConsumer(bench.connection, [bench.topic], group=bench.group, handle=handle)
    await consumer.start()
    await eventually(lambda: consumer.ready)
    await bench.send("stuck", b"stuck")
    for number in range(20):
        await bench.send(f"key{number}", f"{number}".encode())
    await eventually(lambda: len(seen.values) == 20)
    await asyncio.sleep(8)  # longer than the session of six seconds
    assert consumer.ready
    release.set()
    await eventually(lambda: "stuck" in seen.values)
    assert seen.values.count("stuck") == 1
    await consumer.stop()


async def test_a_stop_in_the_middle_of_a_batch_finishes_what_began_and_leaves_the_rest(bench: Bench) -> None:
    for number in range(200):
        await bench.send(f"key{number % 20}", f"{number}".encode())
    before, after = Seen(0.1), Seen()
    consumer = member(bench, before, drain_seconds=0.2)
    await consumer.start()
    await eventually(lambda: len(before.values) > 10)
    await consumer.stop()
    handled = len(before.values)
    assert handled < 200
    successor = member(bench, after)
    await successor.start()
    await eventually(lambda: {str(n) for n in range(200)} <= {*before.values, *after.values}, 40)
    await successor.stop()


async def test_what_was_committed_is_not_handled_again(bench: Bench) -> None:
    for number in range(50):
        await bench.send(f"key{number % 7}", f"{number}".encode())
    before, after = Seen(), Seen()
    consumer = member(bench, before)
    await consumer.start()
    await eventually(lambda: len(before.values) == 50)
    await consumer.stop()
    successor = member(bench, after)
    await successor.start()
    await eventually(lambda: successor.ready)
    await bench.send("key1", b"new")
    await eventually(lambda: "new" in after.values)
    await successor.stop()
    assert after.values == ["new"]


async def test_the_loss_of_the_broker_during_a_publish_is_told_in_time_and_healed_without_a_restart(
    bench: Bench,
) -> None:
    await bench.send("key", b"before")
    bench.broker.stop()
    started = asyncio.get_running_loop().time()
    failed = False
    try:
        await bench.send("key", b"during")
    except Unavailable:
        failed = True
    assert failed
    assert asyncio.get_running_loop().time() - started < bench.connection.timeout_seconds + 2
    bench.broker.restart()  # not in a thread: a server ends with the thread that started it

    await TopicAdmin(bench.connection, replication=1, configurable=False).apply([Wanted(bench.topic, 4, {})])
    async with asyncio.timeout(60):
        while not await sends(bench):
            await asyncio.sleep(0.2)
    assert (await bench.read(bench.topic, 1))[-1].value in {b"before", b"during", b"after"}


async def sends(bench: Bench) -> bool:
    try:
        await bench.send("key", b"after")
    except Unavailable:
        return False
    return True
