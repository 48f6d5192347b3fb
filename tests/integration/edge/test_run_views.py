"""Looks at runs: what one edge has folded no edge folds again, and nobody sees anything but what the log has."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import pytest
from redis.asyncio import Redis

from codeagent.broker.tail import LiveRecord
from codeagent.broker.topics import RUN_DELTAS, RUN_EVENTS
from codeagent.clock import new_uuid
from codeagent.edge import views as module
from codeagent.edge.shared_views import MOST_BYTES, SharedViews, _place
from codeagent.edge.traffic.shared import redis_url
from codeagent.edge.views import RunViews
from codeagent.encryption import SecretBox
from codeagent.errors import NotFound
from codeagent.eventlog.accept import SubmissionLedger
from codeagent.eventlog.database import Database
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.tenants import EDGE_ROLE, TenantLog
from codeagent.messages.events import RunCompleted
from codeagent.messages.values import RunStatus
from tests.integration.eventlog.steps import TENANT, commit_step, new_run, started, step
from tests.services.valkey import ValkeyServer

OTHER = "ten_other"
BOX = SecretBox({"k1": os.urandom(32)})
LONG = 120


class CountedLog(TenantLog):
    """Counts its reads, and the events that they bring."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.reads = self.events = 0

    async def read_stream(
        self, tenant_id: str, stream_id: str, after: int = 0, limit: int = 500
    ) -> Sequence[StoredEvent]:
        found = await super().read_stream(tenant_id, stream_id, after, limit)
        self.reads, self.events = self.reads + 1, self.events + len(found)
        return found


@dataclass
class Edge:
    """One edge's looks at runs."""

    log: CountedLog
    views: RunViews
    shared: SharedViews | None

    async def settled(self) -> None:
        """What it shares is written."""
        assert self.shared is not None
        await asyncio.gather(*self.shared._writes)


class Edges:
    """Edges on one database, which share a Valkey unless told otherwise. `run` writes runs as a worker does."""

    def __init__(self, url: str, valkey: ValkeyServer) -> None:
        self._walled, self._writer = Database(url, role=EDGE_ROLE), Database(url)
        self._valkey = valkey
        self._made: list[Edge] = []

    def edge(self, box: SecretBox = BOX, url: str = "", *, alone: bool = False) -> Edge:
        log, shared = CountedLog(self._walled), None if alone else SharedViews(url or self._valkey.url, box)
        made = Edge(log, RunViews(log, SubmissionLedger(self._walled), shared), shared)
        self._made.append(made)
        return made

    async def run(self, events: int = LONG, *, ended: bool = False, tenant: str = TENANT) -> str:
        run_id = new_run()
        facts = [started()] * events + [RunCompleted()] * ended
        await commit_step(self._writer, step(run_id, 0, facts, tenant=tenant))
        return run_id

    async def more(self, run_id: str, version: int, *facts: object) -> None:
        await commit_step(self._writer, step(run_id, version, facts or [started()]))  # type: ignore[arg-type]

    async def close(self) -> None:
        for edge in self._made:
            if edge.shared is not None:
                await edge.shared.stop()
        await self._walled.close()
        await self._writer.close()


@pytest.fixture
async def edges(module_database_url: str, valkey: ValkeyServer) -> AsyncIterator[Edges]:
    made = Edges(module_database_url, valkey)
    yield made
    await made.close()


@pytest.fixture
async def stored(valkey: ValkeyServer) -> AsyncIterator[Redis]:
    """What is in Valkey, for who would change it."""
    client: Redis = Redis.from_url(redis_url(valkey.url))
    yield client
    await client.aclose()


async def shared_run(edges: Edges, *, tenant: str = TENANT) -> str:
    """A run that some edge has folded and shared."""
    run_id, first = await edges.run(tenant=tenant), edges.edge()
    await first.views.get(tenant, run_id)
    await first.settled()
    return run_id


async def test_what_one_edge_has_folded_another_does_not_fold_again(edges: Edges) -> None:
    run_id = await shared_run(edges)
    other = edges.edge()
    view = await other.views.get(TENANT, run_id)
    assert view == await edges.edge(alone=True).views.get(TENANT, run_id)
    assert (other.log.reads, other.log.events) == (1, 1)


async def test_what_the_log_has_beyond_it_is_shown_at_once(edges: Edges) -> None:
    run_id = await shared_run(edges)
    await edges.more(run_id, LONG, started(), RunCompleted())
    other = edges.edge()
    view = await other.views.get(TENANT, run_id)
    assert (view.version, view.status) == (LONG + 2, RunStatus.COMPLETED)
    assert other.log.events == 3
    await other.settled()
    third = edges.edge()
    assert await third.views.get(TENANT, run_id) == view
    assert third.log.events == 1


async def test_a_short_stream_is_not_worth_it(edges: Edges, stored: Redis) -> None:
    run_id, edge = await edges.run(90, ended=True), edges.edge()
    await edge.views.get(TENANT, run_id)
    await edge.settled()
    assert not await stored.exists(_place(TENANT, run_id))


async def test_nobody_sees_another_tenants_run_wherever_it_is_kept(edges: Edges) -> None:
    run_id, edge = await shared_run(edges), edges.edge()
    for _ in range(2):
        with pytest.raises(NotFound):
            await edge.views.get(OTHER, run_id)
        await edge.views.get(TENANT, run_id)


async def poisoned(edges: Edges, stored: Redis, name: str) -> str:
    """A run whose place in Valkey has been tampered with."""
    run_id = await shared_run(edges)
    place = _place(TENANT, run_id)
    sealed = bytes(await stored.get(place))
    if name == "noise":
        await stored.set(place, os.urandom(500))
    elif name == "one bit":
        await stored.set(place, sealed[:-1] + bytes([sealed[-1] ^ 1]))
    elif name == "too much":
        await stored.set(place, b"x" * (MOST_BYTES + 1))
    elif name == "no text":
        await stored.delete(place)
        await stored.lpush(place, "x")
    elif name == "another run":
        await stored.set(place, await stored.get(_place(TENANT, await shared_run(edges))))
    elif name == "another tenant's run":
        await stored.set(place, await stored.get(_place(OTHER, await shared_run(edges, tenant=OTHER))))
    else:  # Sealed by an edge, and yet nothing that this log has: it was restored from a backup.
        liar = edges.edge()
        assert liar.shared is not None
        snapshot = await liar.shared.get(TENANT, run_id)
        assert snapshot is not None
        changes = {
            "another log's": {"event_id": new_uuid()},
            "the future": {"view": replace(snapshot.view, version=LONG + 100)},
        }
        liar.shared.keep(replace(snapshot, **changes[name]))
        await liar.settled()
    return run_id


@pytest.mark.parametrize(
    "name",
    ["noise", "one bit", "too much", "no text", "another run", "another tenant's run", "another log's", "the future"],
)
async def test_what_valkey_makes_up_is_not_believed(edges: Edges, stored: Redis, name: str) -> None:
    run_id, edge = await poisoned(edges, stored, name), edges.edge()
    view = await edge.views.get(TENANT, run_id)
    assert (view.run_id, view.tenant_id, view.version) == (run_id, TENANT, LONG)
    assert edge.log.events >= LONG


async def test_edges_with_other_keys_do_not_understand_each_other_and_do_no_harm(edges: Edges) -> None:
    run_id, stranger = await shared_run(edges), edges.edge(SecretBox({"k1": os.urandom(32)}))
    assert (await stranger.views.get(TENANT, run_id)).version == LONG
    assert stranger.log.events == LONG


async def test_a_valkey_that_is_away_is_asked_once_and_missed_by_nobody(edges: Edges) -> None:
    edge = edges.edge(url="valkey://127.0.0.1:1/0")
    for _ in range(3):
        assert (await edge.views.get(TENANT, await edges.run())).version == LONG


async def test_a_valkey_that_hangs_costs_one_request_a_moment(edges: Edges, valkey: ValkeyServer) -> None:
    runs, edge = [await edges.run() for _ in range(20)], edges.edge()
    assert edge.shared is not None
    await edge.shared.get(TENANT, runs[0])
    valkey.pause()
    try:
        started_at, asked = time.perf_counter(), 0
        for run_id in runs:
            asked += edge.shared._away_until <= time.monotonic()
            assert (await edge.views.get(TENANT, run_id)).version == LONG
        elapsed = time.perf_counter() - started_at
        # Once, and again for every second that a busy machine takes for all of it.
        assert asked <= 1 + elapsed
    finally:
        valkey.resume()


async def test_an_ended_run_is_shown_without_a_look_at_the_log_until_something_comes(edges: Edges) -> None:
    run_id, edge = await edges.run(3, ended=True), edges.edge(alone=True)

    async def looks() -> int:
        before = edge.log.reads
        assert (await edge.views.get(TENANT, run_id)).status is RunStatus.COMPLETED
        return edge.log.reads - before

    assert [await looks() for _ in range(3)] == [1, 0, 0]
    edge.views.receive(LiveRecord(RUN_DELTAS, run_id, (), b""))
    assert await looks() == 0
    edge.views.receive(LiveRecord(RUN_EVENTS, run_id, (), b""))
    assert [await looks() for _ in range(2)] == [1, 0]
    edge.views.reconnected()
    assert [await looks() for _ in range(2)] == [1, 0]


async def test_and_not_for_ever(edges: Edges, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FINAL_SECONDS", 0.0)
    run_id, edge = await edges.run(3, ended=True), edges.edge(alone=True)
    for _ in range(2):
        await edge.views.get(TENANT, run_id)
    assert edge.log.reads == 2


async def test_a_run_that_works_is_looked_at_every_time(edges: Edges) -> None:
    run_id, edge = await edges.run(3), edges.edge(alone=True)
    assert (await edge.views.get(TENANT, run_id)).version == 3
    await edges.more(run_id, 3)
    assert (await edge.views.get(TENANT, run_id)).version == 4
    assert edge.log.events == 4
