"""The moments between two steps at which a process can end, by name, and what happens to a process that reaches one.

Production code knows nothing of this: a process started through `tests.acceptance.dying` has the functions named here
wrapped.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg

from codeagent.broker.topics import AGENT_WORKER, PROVIDER_WORKER, RUN_COMMANDS, SANDBOX_WORKER
from codeagent.errors import Conflict, OutcomeUnknown
from codeagent.eventlog.effects import Verdict
from codeagent.eventlog.step import Step, Steps
from codeagent.workers.effect import Work


@dataclass(frozen=True)
class Passage:
    """One call of a wrapped function. `hit` writes down that the window was met."""

    call: Callable[[], Awaitable[Any]]
    arguments: tuple[Any, ...]
    hit: Callable[[], None]

    def die(self) -> None:
        self.hit()
        os.kill(os.getpid(), signal.SIGKILL)


async def dies_before(passage: Passage) -> None:
    passage.die()


async def dies_a_moment_later(passage: Passage) -> None:
    """So that what was about to be answered has been."""
    await asyncio.sleep(0.2)
    passage.die()


async def dies_after(passage: Passage) -> None:
    await passage.call()
    passage.die()


async def dies_having_found_something(passage: Passage) -> Any:
    found = await passage.call()
    if found:
        passage.die()
    return found


async def loses_the_answer(passage: Passage) -> None:
    """The statement stands; the connection died before that was heard."""
    await passage.call()
    passage.hit()
    raise OutcomeUnknown("the connection died")


_END_WHOEVER_WAITS_FOR_US = """
SELECT bool_or(pg_terminate_backend(waits.pid))
FROM pg_locks ours JOIN pg_locks waits USING (locktype, database, classid, objid, objsubid)
WHERE locktype = 'advisory' AND ours.pid = pg_backend_pid() AND ours.granted AND NOT waits.granted"""


async def loses_the_connection(passage: Passage) -> Any:
    """PostgreSQL ends the connection in the middle of a step's commit, where it waits for the lock of its stream."""
    steps, step = passage.arguments
    assert isinstance(steps, Steps)
    assert isinstance(step, Step)
    url = steps._database.url
    holder = await asyncpg.connect(url if isinstance(url, str) else url())
    try:
        async with holder.transaction():
            await holder.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", step.stream_id)
            commit = asyncio.ensure_future(passage.call())
            while not await holder.fetchval(_END_WHOEVER_WAITS_FOR_US):
                await asyncio.sleep(0.002)
            await asyncio.wait({commit})
    finally:
        await holder.close()
    passage.hit()
    return commit.result()


async def is_refused_by_the_head(passage: Passage) -> Any:
    try:
        return await passage.call()
    except Conflict:
        passage.hit()
        raise


async def is_refused_by_the_token(passage: Passage) -> Any:
    verdict = await passage.call()
    if verdict is Verdict.STALE:
        passage.hit()
    return verdict


async def finds_its_claim_lost(passage: Passage) -> None:
    await passage.call()
    work = passage.arguments[1]
    assert isinstance(work, Work)
    if work.stopped == "lost":
        passage.hit()


def is_command(_: object, topic: str, *__: object) -> bool:
    return topic == RUN_COMMANDS


def any_call(*_: object) -> bool:
    return True


@dataclass(frozen=True)
class Window:
    """`target` is `module:function` or `module:Class.method`, a coroutine function; `counts` says which of its calls
    are passages. `most`: at which passage it is met at the latest; 0: at whichever brings it about."""

    role: str
    name: str
    deed: Callable[[Passage], Awaitable[Any]]
    target: str
    most: int = 8
    counts: Callable[..., bool] = any_call

    @property
    def is_fatal(self) -> bool:
        return self.deed.__name__.startswith("dies_")

    def __str__(self) -> str:
        return f"{self.role}, {self.name}"


COMMIT = "codeagent.eventlog.step:Steps.commit"
RECORD = "codeagent.eventlog.effects:EffectsLedger.record"
PERFORM = "codeagent.workers.effect:EffectLoop._performed"
ACCEPT = "codeagent.eventlog.accept:SubmissionLedger.accept"


def _of_an_effect_worker(role: str, middle: str, target: str) -> list[Window]:
    return [
        Window(role, "claimed, nothing performed", dies_before, PERFORM),
        Window(role, middle, dies_before, target),
        Window(role, "performed, not recorded", dies_before, RECORD),
        Window(role, "recorded, the answer not sent", dies_after, RECORD),
        Window(role, "recorded over a connection that dies with the answer", loses_the_answer, RECORD, 3),
    ]


BY_WORKERS = [
    Window(AGENT_WORKER, "decided, not committed", dies_before, COMMIT, 30),
    Window(AGENT_WORKER, "committed, nothing handed over", dies_after, COMMIT, 30),
    Window(AGENT_WORKER, "connection dies during the commit, which is undone", loses_the_connection, COMMIT, 10),
    Window(AGENT_WORKER, "connection dies during the commit, which stands", loses_the_answer, COMMIT, 10),
    Window(
        AGENT_WORKER,
        "sent, its row not removed from the outbox",
        dies_before,
        "codeagent.relay.outbox:OutboxPublisher._remove",
        30,
    ),
    *_of_an_effect_worker(PROVIDER_WORKER, "in the middle of the answer", "codeagent.workers.deltas:DeltaSender.write"),
    *_of_an_effect_worker(
        SANDBOX_WORKER, "files changed, no checkpoint taken", "codeagent.workers.sandbox:SandboxPerformer._checkpoint"
    ),
    Window(
        "relay",
        "rows taken, not sent",
        dies_having_found_something,
        "codeagent.eventlog.sweep:Sweeper.due_messages",
        0,
    ),
]
ASKING_THE_BROKER = [
    Window("edge", "submission noted, the broker does not have it", dies_after, ACCEPT, 4),
    Window(
        "edge",
        "the broker has the submission, the client no answer",
        dies_after,
        "codeagent.broker.publisher:Publisher.send",
        4,
        is_command,
    ),
]
ASKING_THE_DATABASE = [
    Window("edge", "submission in the outbox, the client has no answer", dies_after, ACCEPT, 4),
    Window(
        "edge",
        "the client has its answer, the broker not the submission",
        dies_a_moment_later,
        "codeagent.broker.publisher:Publisher.send_all",
        4,
        is_command,
    ),
]
"""With `durable_accept`, as `codeagent up` has it."""

OF_TWO_OWNERS = [
    Window(AGENT_WORKER, "two workers hold one run, one is refused", is_refused_by_the_head, COMMIT, 0),
    *(
        Window(role, "paused beyond its lease, its claim is lost", deed, target, 0)
        for role in (PROVIDER_WORKER, SANDBOX_WORKER)
        for deed, target in (
            (is_refused_by_the_token, RECORD),
            (finds_its_claim_lost, "codeagent.workers.effect:EffectLoop._perform"),
        )
    ),
]
"""Met where a second worker of the kind is there."""
