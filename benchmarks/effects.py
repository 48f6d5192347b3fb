"""What an effect costs: milliseconds one run at a time, effects a second with a hundred runs, records each."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from functools import partial

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.ground import Ground, in_child
from benchmarks.workers import EFFECTS_A_RUN, run_worker
from codeagent import clock
from codeagent.broker.publisher import Publisher
from codeagent.broker.topics import RUN_COMMANDS, load_topics
from codeagent.messages.catalog import encode_data
from codeagent.messages.commands import SubmitRun
from codeagent.messages.envelope import Envelope, to_headers
from codeagent.messages.ids import derived_uuid, typed_id
from codeagent.messages.values import ArchiveSource, RunLimits

SERIAL_RUNS = 15
PARALLEL_RUNS = 100


def measure(ground: Ground) -> dict[str, float]:
    """Figures of one broker."""
    workers = [in_child(partial(run_worker, name, ground.settings)) for name in ("agent", "provider", "sandbox")]
    try:
        return asyncio.run(_measure(ground))
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join(10)


async def _measure(ground: Ground) -> dict[str, float]:
    database = await asyncpg.connect(ground.settings.database_url.get_secret_value())
    publisher = Publisher(ground.connection)
    await publisher.start()
    try:
        await _runs(database, publisher, 3, 1)  # until every worker has joined and is warm
        serial = await _runs(database, publisher, SERIAL_RUNS, 1)
        gaps = await _gaps(database, serial)
        before = await _counts(database, ground)
        started = time.perf_counter()
        await _runs(database, publisher, PARALLEL_RUNS, PARALLEL_RUNS)
        elapsed = time.perf_counter() - started
        await asyncio.sleep(1.0)
        after = await _counts(database, ground)
        effects = PARALLEL_RUNS * EFFECTS_A_RUN
        return {
            "ms an effect, one run, p50": statistics.median(gaps) * 1_000,
            "ms an effect, one run, p95": sorted(gaps)[int(len(gaps) * 0.95)] * 1_000,
            "effects/s, 100 runs": effects / elapsed,
            "writing transactions an effect": (after[0] - before[0]) / effects,
            "statements an effect": (after[1] - before[1]) / effects,
            "records an effect": (after[2] - before[2]) / effects,
            "ms a durable commit, p50": await _raw_commit(database) * 1_000,
            "ms a broker round trip, p50": await _round_trip(ground) * 1_000,
        }
    finally:
        await publisher.stop()
        await database.close()


async def _submit(publisher: Publisher) -> str:
    run_id = typed_id("run", clock.new_uuid())
    command = SubmitRun(
        run_id=run_id,
        task="measure",
        source=ArchiveSource(digest="sha256:" + "0" * 64),
        agent="coder",
        model="instant/model",
        limits=RunLimits(),
        fingerprint="f",
    )
    command_id = derived_uuid(run_id, "submit")
    envelope = Envelope(
        id=command_id,
        name=command.NAME,
        version=1,
        source="/bench",
        time=clock.now(),
        tenant_id="ten_bench",
        key=run_id,
        correlation_id=command_id,
    )
    await publisher.send(RUN_COMMANDS, run_id, to_headers(envelope), encode_data(command))
    return run_id


async def _runs(database: asyncpg.Connection, publisher: Publisher, count: int, at_once: int) -> list[str]:
    ids: list[str] = []
    for _ in range(0, count, at_once):
        batch = await asyncio.gather(*(_submit(publisher) for _ in range(at_once)))
        ids += batch
        async with asyncio.timeout(90):
            while await _open(database, batch):
                await asyncio.sleep(0.02)
    return ids


async def _open(database: asyncpg.Connection, ids: list[str]) -> int:
    ended = await database.fetchval(
        "SELECT count(*) FROM events WHERE stream_id = ANY ($1) AND event_type = 'run.completed'",
        [f"run-{run_id}" for run_id in ids],
    )
    return len(ids) - int(ended)


async def _gaps(database: asyncpg.Connection, ids: list[str]) -> list[float]:
    """Seconds from asking for one effect to asking for the next, from the log's own times."""
    gaps: list[float] = []
    for run_id in ids:
        rows = await database.fetch(
            """SELECT recorded_at FROM events WHERE stream_id = $1
               AND event_type IN ('run.step.started', 'tool.call.started') ORDER BY stream_version""",
            f"run-{run_id}",
        )
        times = [row["recorded_at"].timestamp() for row in rows]
        gaps += [later - earlier for earlier, later in itertools.pairwise(times)]
    return gaps


async def _counts(database: asyncpg.Connection, ground: Ground) -> tuple[int, int, int]:
    """Transactions that wrote, transactions of any kind, records in all topics."""
    await database.execute("SELECT pg_stat_force_next_flush()")
    writing = await database.fetchval("SELECT pg_current_xact_id()::text::bigint")
    every = await database.fetchval("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    return int(writing), int(every), await _records(ground)


async def _records(ground: Ground) -> int:
    topics = [topic.name for topic in load_topics(ground.settings.topics_dir)]
    consumer = AIOKafkaConsumer(bootstrap_servers=ground.settings.kafka_bootstrap_servers)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for topic in topics for number in range(6)]
        return sum((await consumer.end_offsets(partitions)).values())
    finally:
        await consumer.stop()


async def _raw_commit(database: asyncpg.Connection) -> float:
    await database.execute("CREATE TABLE IF NOT EXISTS bench_commit (n bigint)")
    taken: list[float] = []
    for number in range(200):
        started = time.perf_counter()
        await database.execute("INSERT INTO bench_commit VALUES ($1)", number)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


async def _round_trip(ground: Ground) -> float:
    """One record out, acknowledged, and in again."""
    publisher = Publisher(ground.connection)
    await publisher.start()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=ground.settings.kafka_bootstrap_servers,
        fetch_max_wait_ms=ground.settings.kafka_fetch_wait_ms,
    )
    await consumer.start()
    partitions = [TopicPartition("codeagent.run.deltas.v1", number) for number in range(6)]
    consumer.assign(partitions)
    await consumer.seek_to_end(*partitions)
    taken: list[float] = []
    try:
        for number in range(100):
            started = time.perf_counter()
            value = f"{number}".encode()
            await publisher.send("codeagent.run.deltas.v1", "k", [], value)
            while (await consumer.getone()).value != value:
                pass
            taken.append(time.perf_counter() - started)
    finally:
        await consumer.stop()
        await publisher.stop()
    return statistics.median(taken)
