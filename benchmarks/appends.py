"""Appends a second: a committed step against plain asyncpg writing the same rows in the same number of round trips."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from uuid import UUID

import asyncpg
import orjson

from benchmarks.ground import Ground
from codeagent import clock
from codeagent.eventlog.database import SERVICE_ROLE, Database
from codeagent.eventlog.step import Step, Steps
from codeagent.eventlog.stored import metadata_for, prepare
from codeagent.messages.envelope import Envelope
from codeagent.messages.events import RunStarted
from codeagent.messages.ids import run_stream, typed_id

WRITERS = 8
SECONDS = 6.0

_RAW = """
WITH written AS (
    INSERT INTO events (stream_id, stream_version, tenant_id, event_id, event_type, schema_version, data, data_digest,
                        metadata, occurred_at, leaf_hash)
    VALUES ($1, $2, 'ten_bench', $3, 'run.started', 1, $4, $5, $6, $7, $5),
           ($1, $2 + 1, 'ten_bench', $8, 'run.started', 1, $4, $5, $6, $7, $5)
)
INSERT INTO outbox (id, topic, key, tenant_id, stream_id, first_version, last_version, due_at)
VALUES ($9, 't', $1, 'ten_bench', $1, $2, $2 + 1, now() + interval '1 hour')"""


def measure(ground: Ground) -> dict[str, float]:
    """Events a second both ways, and their ratio. Each step appends two events and announces them."""
    return asyncio.run(_measure(ground.settings.database_url.get_secret_value()))


async def _measure(url: str) -> dict[str, float]:
    ours: list[float] = []
    raw: list[float] = []
    for _ in range(2):  # in turn, so that a busy neighbour meets both
        ours.append(await _ours(url))
        raw.append(await _raw(url))
    connection = await asyncpg.connect(url)
    await connection.execute("TRUNCATE outbox")  # nobody shall send what was only measured
    await connection.close()
    return {"appends/s": max(ours), "plain asyncpg appends/s": max(raw), "ratio of appends": max(ours) / max(raw)}


async def _rate(write: Callable[[str, int], Awaitable[None]]) -> float:
    stop_at = time.perf_counter() + SECONDS
    written = 0

    async def writer() -> None:
        nonlocal written
        run_id, version = typed_id("run", clock.new_uuid()), 0
        while time.perf_counter() < stop_at:
            await write(run_id, version)
            version += 2
            written += 2

    started = time.perf_counter()
    await asyncio.gather(*(writer() for _ in range(WRITERS)))
    return written / (time.perf_counter() - started)


async def _ours(url: str) -> float:
    database = Database(url, connections=WRITERS, role=SERVICE_ROLE)
    steps = Steps(database)

    async def write(run_id: str, version: int) -> None:
        command_id = clock.new_uuid()
        envelope = Envelope(command_id, "run.submit", 1, "/bench", clock.now(), "ten_bench", run_id, command_id)
        metadata = metadata_for(envelope, run_id)
        events = [
            prepare(
                RunStarted(attempt=number),
                stream_id=run_stream(run_id),
                version=version + number,
                event_id=clock.new_uuid(),
                tenant_id="ten_bench",
                occurred_at=clock.now(),
                metadata=metadata,
            )
            for number in (1, 2)
        ]
        step = Step(
            run_id,
            run_stream(run_id),
            version,
            "ten_bench",
            envelope,
            events,
            clock.new_uuid(),
            "t",
            handled=command_id,
        )
        await steps.commit(step)

    try:
        return await _rate(write)
    finally:
        await database.close()


async def _raw(url: str) -> float:
    pool = await asyncpg.create_pool(url, min_size=WRITERS, max_size=WRITERS)
    data, digest = b'{"attempt":1}', b"0" * 32
    metadata = orjson.dumps({"runid": "r", "correlationid": str(UUID(int=1)), "authid": "a"}).decode()

    async def write(run_id: str, version: int) -> None:
        await pool.execute(
            _RAW, f"raw-{run_id}", version + 1, clock.new_uuid(), data, digest, metadata, clock.now(), clock.new_uuid(),
            clock.new_uuid(),
        )  # fmt: skip

    try:
        return await _rate(write)
    finally:
        await pool.close()
