"""The join of log and live: whatever the topic loses, repeats or reorders, a client sees every version once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from codeagent import clock
from codeagent.broker.tail import LiveRecord
from codeagent.broker.topics import RUN_DELTAS, RUN_EVENTS
from codeagent.edge import joined
from codeagent.edge.admission import Admission
from codeagent.edge.joined import MOST_BUFFERED, EventStream
from codeagent.edge.live import LiveHub, RunSource
from codeagent.eventlog.database import Database
from codeagent.eventlog.step import Step
from codeagent.eventlog.tenants import TenantLog
from codeagent.identity.principal import Principal
from codeagent.messages.envelope import to_headers
from codeagent.messages.events import RunCompleted
from codeagent.messages.results import Delta
from tests.integration.eventlog.steps import TENANT, commit_step, new_run, started, step


class Watcher:
    """One client's stream, read frame by frame."""

    def __init__(
        self, log: TenantLog, hub: LiveHub, run_id: str, *, heartbeat: float = 30.0, expires_in: float | None = None
    ) -> None:
        caller = Principal(TENANT, "usr_t", "key_t")
        if expires_in is not None:
            caller = replace(caller, expires_at=clock.now() + timedelta(seconds=expires_in))
        self.valid = True
        life = Admission(caller, None, lambda: hub.closing, lambda _: self.valid)
        source = RunSource(log, hub, TENANT, run_id, transport="sse")
        self._frames = EventStream(source, 0, life, heartbeat_seconds=heartbeat).frames()
        self.versions: list[int] = []

    async def next(self) -> tuple[str, dict[str, object]]:
        async with asyncio.timeout(5):
            frame = await anext(self._frames)
        if frame.position is not None:
            self.versions.append(int(frame.position))
        return frame.name, json.loads(frame.data)

    async def until(self, name: str) -> None:
        while (await self.next())[0] != name:
            pass

    async def close(self) -> None:
        await self._frames.aclose()


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
async def database(module_database_url: str) -> AsyncIterator[Database]:
    opened = Database(module_database_url)
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
    assert await watcher.next() == ("stream.heartbeat", {"position": "1"})
    await watcher.close()


async def test_an_edge_that_stops_waits_until_every_client_has_been_told(database: Database, log: TenantLog) -> None:
    hub, run_id = LiveHub(log), new_run()
    await commit_step(database, step(run_id, 0, [started()]))
    watcher = Watcher(log, hub, run_id)
    await watcher.next()
    await watcher.next()
    stopping = asyncio.create_task(hub.stop())
    await asyncio.sleep(0.05)
    assert not stopping.done()
    assert await watcher.next() == ("stream.end", {"reason": "reconnect"})
    await watcher.close()
    await asyncio.wait_for(stopping, 2)


async def test_a_credential_that_expires_ends_the_stream_at_that_moment(database: Database, log: TenantLog) -> None:
    hub, run_id = LiveHub(log), new_run()
    await commit_step(database, step(run_id, 0, [started()]))
    watcher = Watcher(log, hub, run_id, expires_in=0.2)
    await watcher.next()
    await watcher.next()
    assert await watcher.next() == ("stream.end", {"reason": "token_expired"})
    assert watcher.versions == [1]


async def test_no_stream_goes_on_for_ever(database: Database, log: TenantLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "LONGEST_SECONDS", 0.1)
    run_id = new_run()
    await commit_step(database, step(run_id, 0, [started()]))
    watcher = Watcher(log, LiveHub(log), run_id, heartbeat=0.05)
    while (said := await watcher.next())[0] != "stream.end":
        pass
    assert said == ("stream.end", {"reason": "reconnect"})


async def test_a_revoked_credential_sees_nothing_of_what_comes_after(database: Database, log: TenantLog) -> None:
    hub, run_id = LiveHub(log), new_run()
    await commit_step(database, step(run_id, 0, [started()]))
    watcher = Watcher(log, hub, run_id)
    await watcher.next()
    await watcher.next()
    await commit_step(database, step(run_id, 1, [started(), started()]))
    watcher.valid = False
    hub.recheck()
    assert await watcher.next() == ("stream.end", {"reason": "revoked"})
    assert watcher.versions == [1]
