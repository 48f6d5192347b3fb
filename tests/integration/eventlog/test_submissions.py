"""Submissions are kept for as long as somebody needs them: the log takes over, and a sweep forgets."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

from codeagent.broker.topics import RUN_COMMANDS
from codeagent.errors import Unavailable
from codeagent.eventlog.accept import Accepted, Submission, SubmissionLedger
from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import OutboxRow
from codeagent.messages.commands import CancelRun
from codeagent.relay.retention import RetentionLoop
from tests.integration.workers.system import TENANT, Bench

DAY = timedelta(hours=24)
DURABLE, BY_BROKER = True, False


def submission(bench: Bench, *, durable: bool = DURABLE, fingerprint: str = "f") -> Submission:
    message = bench.submit()
    row = OutboxRow(message.envelope.id, RUN_COMMANDS, message.envelope, message.data)
    request = message.data.model_copy(update={"fingerprint": fingerprint})
    return Submission(bench.run_id, TENANT, message.envelope.actor_id, request, row if durable else None)


async def accepted(database: Database, *, durable: bool = DURABLE, hours_ago: float = 25) -> Bench:
    """A run that the edge has answered 202 to, that long ago. No worker has seen it yet."""
    bench, ledger = Bench(database), SubmissionLedger(database)
    await ledger.accept(submission(bench, durable=durable))
    if not durable:
        ledger.confirm(bench.run_id)
        await ledger.close()
    await grow_old(bench, hours_ago)
    return bench


async def grow_old(bench: Bench, hours: float) -> None:
    await bench.database.write(
        "UPDATE submissions SET created_at = created_at - $2::interval WHERE run_id = $1",
        bench.run_id,
        timedelta(hours=hours),
    )


async def test_an_old_submission_goes_once_its_run_is_in_the_log(database: Database) -> None:
    ledger = SubmissionLedger(database)
    young, old = await accepted(database, hours_ago=23), await accepted(database)
    for bench in (young, old):
        await bench.agent().handle(bench.submit())
    assert await ledger.forget(DAY, 100) == 1
    assert await ledger.find(TENANT, old.run_id) is None
    assert await ledger.find(TENANT, young.run_id) is not None


async def test_a_submission_that_still_waits_in_the_outbox_stays_however_old(database: Database) -> None:
    ledger, bench = SubmissionLedger(database), await accepted(database, hours_ago=1000)
    assert await bench.rows("outbox") == 1
    assert await ledger.forget(DAY, 100) == 0
    await bench.agent().handle(bench.message(CancelRun(run_id=bench.run_id)))
    assert await ledger.forget(DAY, 100) == 0, "a stream that a cancel has opened does not know the submission"
    await bench.agent().handle(bench.submit())
    assert await ledger.forget(DAY, 100) == 1


async def test_a_submission_that_only_the_broker_has_stays_until_a_worker_has_read_it(database: Database) -> None:
    ledger, bench = SubmissionLedger(database), await accepted(database, durable=BY_BROKER)
    assert await ledger.forget(DAY, 100) == 0
    await bench.agent().handle(bench.submit())
    assert await ledger.forget(DAY, 100) == 1


async def test_a_submission_that_nobody_was_told_of_goes_by_its_age(database: Database) -> None:
    ledger, bench = SubmissionLedger(database), Bench(database)
    await ledger.accept(submission(bench, durable=BY_BROKER))
    assert await ledger.forget(DAY, 100) == 0
    await grow_old(bench, 25)
    assert await ledger.forget(DAY, 100) == 1


def regular(ledger: SubmissionLedger) -> RetentionLoop:
    return RetentionLoop({"submissions": partial(ledger.forget, DAY)}, every_seconds=0.05)


async def test_sweeps_share_the_work_in_bounded_batches(database: Database) -> None:
    ledger = SubmissionLedger(database)
    for _ in range(5):
        bench = await accepted(database)
        await bench.agent().handle(bench.submit())
    counts = await asyncio.gather(ledger.forget(DAY, 2), SubmissionLedger(database).forget(DAY, 2))
    assert max(counts) <= 2
    assert await regular(ledger).round() == 5 - sum(counts)


async def test_a_forgotten_submission_is_recognised_by_the_log_and_writes_nothing(database: Database) -> None:
    ledger, bench = SubmissionLedger(database), await accepted(database)
    await bench.agent().handle(bench.submit())
    await ledger.forget(DAY, 100)
    before = await bench.rows("outbox")
    assert await ledger.accept(submission(bench)) == Accepted("f", accepted=True, inserted=False)
    assert await ledger.accept(submission(bench, fingerprint="other")) == Accepted("f", accepted=True, inserted=False)
    assert (await bench.rows("submissions"), await bench.rows("outbox")) == (0, before)


async def test_the_regular_round_goes_on_after_the_database_was_away(database: Database) -> None:
    bench = await accepted(database)
    await bench.agent().handle(bench.submit())
    url, database.url = database.url, "postgresql://nobody:x@127.0.0.1:1/none"
    await database.close()
    failed = asyncio.Event()

    class Watched(SubmissionLedger):
        async def forget(self, older_than: timedelta, most: int) -> int:
            try:
                return await super().forget(older_than, most)
            except Unavailable:
                failed.set()
                raise

    loop = regular(Watched(database))
    await loop.start()
    try:
        async with asyncio.timeout(20):
            await failed.wait()
            database.url = url
            while await bench.rows("submissions"):
                await asyncio.sleep(0.02)
    finally:
        await loop.stop()
