"""The join of log and live: whatever the topic loses, repeats or reorders, a client sees every version once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from codeagent.broker.tail import LiveRecord
from codeagent.broker.topics import RUN_DELTAS, RUN_EVENTS
from codeagent.edge.live import MOST_BUFFERED, LiveHub
from codeagent.edge.stream import RunStream
from codeagent.eventlog.database import Database
from codeagent.eventlog.step import Step
from codeagent.eventlog.tenants import TenantLog
from codeagent.identity.principal import Principal
from codeagent.messages.envelope import to_headers
from codeagent.messages.events import RunCompleted
from codeagent.messages.results import Delta
from tests.integration.eventlog.steps import TENANT, commit_step, new_run, started, step

CALLER = Principal(TENANT, "usr_test", "key_test")


class Watcher:
    """One client's stream, read event by event."""

    def __init__(self, log: TenantLog, hub: LiveHub, run_id: str, after: int = 0, heartbeat: float = 30.0) -> None:
        stream = RunStream(log, hub, CALLER, run_id, after, heartbeat_seconds=heartbeat)
        self._events: AsyncIterator[object] = stream.events()
        self.versions: list[int] = []

    async def next(self) -> tuple[str, dict[str, object]]:
        async with asyncio.timeout(5):
            event = await anext(self._events)
        if event.id is not None:  # type: ignore[attr-defined]  # a ServerSentEvent
            self.versions.append(int(event.id))  # type: ignore[attr-defined]
        return event.event, json.loads(event.data)  # type: ignore[attr-defined]

    async def until(self, name: str) -> None:
        while (await self.next())[0] != name:
            pass

    async def close(self) -> None:
        await self._events.aclose()  # type: ignore[attr-defined]  # a generator


def live(made: Step, index: int) -> LiveRecord:
    event = made.events[index]
    return LiveRecord(RUN_EVENTS, made.run_id, to_headers(event.envelope()), event.data)


def delta(run_id: str, text: str, attempt: int = 1) -> LiveRecord:
    value = Delta(
        name="message.delta",
        run_id=run_id,
        effect_id=UUID(int=1),
        attempt=attempt,
        sequence=1,
        stream="text",
        text=text,
    )
    return LiveRecord(RUN_DELTAS, run_id, [], value.model_dump_json().encode())


@pytest.fixture
async def database(newest_database_url: str) -> AsyncIterator[Database]:
    opened = Database(newest_database_url)
    yield opened
    await opened.close()


@pytest.fixture
def log(database: Database) -> TenantLog:
    return TenantLog(database)


async def test_repeats_are_dropped_and_gaps_are_filled_from_the_log(database: Database, log: TenantLog) -> None:
    hub, run_id = LiveHub(log), new_run()
    first = step(run_id, 0, [started(), started()])
    await commit_step(database, first)
    watcher = Watcher(log, hub, run_id)
    for _ in range(3):
        await watcher.next()
    second = step(run_id, 2, [started(), started(), started()])
    await commit_step(database, second)
    hub.receive(live(first, 1))
    hub.receive(live(second, 2))  # the two before it never come
    for _ in range(3):
        await watcher.next()
    hub.receive(live(second, 0))
    third = step(run_id, 5, [RunCompleted()])
    await commit_step(database, third)
    hub.receive(live(third, 0))
    await watcher.until("stream.end")
    assert watcher.versions == [1, 2, 3, 4, 5, 6]


async def test_a_last_event_that_never_comes_live_is_found_by_the_regular_check(
    database: Database, log: TenantLog
) -> None:
    hub, run_id = LiveHub(log), new_run()
    await commit_step(database, step(run_id, 0, [started()]))
    watcher = Watcher(log, hub, run_id)
    await watcher.next()
    await watcher.next()
    await commit_step(database, step(run_id, 1, [RunCompleted()]))
    waiting = asyncio.create_task(watcher.until("stream.end"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await hub.check()
    await waiting
    assert watcher.versions == [1, 2]


async def test_a_broker_that_was_away_costs_nothing(database: Database, log: TenantLog) -> None:
    hub, run_id = LiveHub(log), new_run()
    await commit_step(database, step(run_id, 0, [started()]))
    watcher = Watcher(log, hub, run_id)
    await watcher.next()
    await watcher.next()
    await commit_step(database, step(run_id, 1, [started(), RunCompleted()]))
    waiting = asyncio.create_task(watcher.until("stream.end"))
    await asyncio.sleep(0.01)
    hub.reconnected()
    await waiting
    assert watcher.versions == [1, 2, 3]


async def test_a_client_that_falls_behind_loses_deltas_is_told_and_loses_no_event(
    database: Database, log: TenantLog
) -> None:
    hub, run_id = LiveHub(log), new_run()
    await commit_step(database, step(run_id, 0, [started()]))
    watcher = Watcher(log, hub, run_id)
    await watcher.next()
    await watcher.next()
    pausing = asyncio.create_task(watcher.next())
    await asyncio.sleep(0.01)
    for number in range(MOST_BUFFERED + 50):
        hub.receive(delta(run_id, f"{number}"))
    last = step(run_id, 1, [RunCompleted()])
    await commit_step(database, last)
    hub.receive(live(last, 0))
    assert await pausing == ("stream.lagging", {"dropped": 50})
    await watcher.until("stream.end")
    assert watcher.versions == [1, 2]


async def test_text_of_an_attempt_that_was_given_up_is_not_sent(database: Database, log: TenantLog) -> None:
    hub, run_id = LiveHub(log), new_run()
    await commit_step(database, step(run_id, 0, [started()]))
    watcher = Watcher(log, hub, run_id)
    await watcher.next()
    await watcher.next()
    waiting = asyncio.create_task(watcher.next())
    await asyncio.sleep(0.01)
    hub.receive(delta(run_id, "second try", attempt=2))
    hub.receive(delta(run_id, "late, of the first", attempt=1))
    hub.receive(delta(run_id, "more", attempt=2))
    texts = [(await waiting)[1]["text"], (await watcher.next())[1]["text"]]
    assert texts == ["second try", "more"]
    await watcher.close()


async def test_a_quiet_stream_says_that_it_lives(database: Database, log: TenantLog) -> None:
    hub, run_id = LiveHub(log), new_run()
    await commit_step(database, step(run_id, 0, [started()]))
    watcher = Watcher(log, hub, run_id, heartbeat=0.05)
    await watcher.next()
    await watcher.next()
    assert await watcher.next() == ("stream.heartbeat", {"version": 1})
    await hub.stop()
    assert await watcher.next() == ("stream.end", {"reason": "reconnect"})
    await watcher.close()


async def test_a_credential_that_was_revoked_before_there_was_a_stream_to_end_sees_nothing(
    database: Database, log: TenantLog
) -> None:
    run_id = new_run()
    await commit_step(database, step(run_id, 0, [started()] * 20))
    watcher = Watcher(log, LiveHub(log, revoked=lambda caller: caller == CALLER), run_id)
    await watcher.next()
    assert await watcher.next() == ("stream.end", {"reason": "revoked"})


async def test_a_revocation_breaks_off_however_much_is_still_to_be_read(database: Database, log: TenantLog) -> None:
    revoked: set[str] = set()
    hub, run_id = LiveHub(log, revoked=lambda caller: caller.credential_id in revoked), new_run()
    await commit_step(database, step(run_id, 0, [started()] * 20))
    watcher = Watcher(log, hub, run_id)
    for _ in range(4):
        await watcher.next()
    hub.end_revoked()  # of somebody else
    await watcher.next()
    revoked.add(CALLER.credential_id)
    hub.end_revoked()
    await watcher.until("stream.end")
    assert len(watcher.versions) < 20


async def test_a_run_that_has_ended_is_said_to_have_ended_whatever_else_is_so(
    database: Database, log: TenantLog
) -> None:
    hub, run_id = LiveHub(log), new_run()
    await commit_step(database, step(run_id, 0, [RunCompleted()]))
    watcher = Watcher(log, hub, run_id)
    await watcher.next()
    await watcher.next()
    await hub.stop()
    assert await watcher.next() == ("stream.end", {"reason": "run_ended"})
