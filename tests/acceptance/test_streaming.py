"""Two edges, two hundred clients that drop and resume anywhere, edges that stop and die: each event once, in order."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from codeagent.cli.client import Client
from codeagent.cli.connection import Connection
from tests.acceptance.checks import query, upload
from tests.acceptance.conversations import EMPTY, line_writer
from tests.acceptance.system import client
from tests.acceptance.two_edges import TwoEdges
from tests.acceptance.watchers import Crowd, SocketWatcher, SseWatcher, Watcher
from tests.conftest import SEED
from tests.servers.model_server import ModelServer

WAVE = 4
CALLS = 6
KINDS = [SseWatcher] * 60 + [SocketWatcher] * 40
"""Of the clients that come with each of the two waves of runs."""
OF_THE_FEED = 10
"""Every such client follows the feed, the others a run of their wave."""


def heads(database_url: str) -> dict[str, int]:
    """How many events each run has."""
    rows = query(
        database_url,
        """SELECT metadata ->> 'runid' AS run, max(stream_version) AS head
           FROM events WHERE stream_id LIKE 'run-%' GROUP BY 1""",
    )
    return {row["run"]: row["head"] for row in rows}


@dataclass
class Day:
    """What happens while the clients watch: two waves of runs, an edge that is stopped and one that dies."""

    system: TwoEdges
    digest: str
    crowd: Crowd
    group: asyncio.TaskGroup
    watchers: list[Watcher] = field(default_factory=list)
    ended_before_the_kill: int = 0
    exit_status: int = -1

    async def pass_by(self) -> None:
        await self._wave(self.system.connection)
        await self._written(WAVE * 8)
        restarting = asyncio.create_task(asyncio.to_thread(self.system.restart_first))
        await self._wave(self.system.second)
        self.exit_status = await restarting
        runs = await asyncio.to_thread(query, self.system.database_url, _ENDED)
        self.ended_before_the_kill = runs[0]["count"]
        await asyncio.to_thread(self.system.kill_second)

    async def _wave(self, edge: Connection) -> None:
        """Some runs, and clients of both kinds for each of them and for the feed."""
        wave = len(self.watchers) // len(KINDS)
        body = {
            "task": "Write.",
            "source": {"kind": "archive", "digest": self.digest},
            "model": "local/scripted",
        }
        names = [f"wave-{wave}-{number}" for number in range(WAVE)]
        api = Client(edge)
        runs = [str((await asyncio.to_thread(api.submit, body, name))["id"]) for name in names]
        for number, kind in enumerate(KINDS):
            watcher = kind(self.crowd, None if number % OF_THE_FEED == 0 else runs[number % WAVE])
            self.watchers.append(watcher)
            self.group.create_task(watcher.follow())

    async def _written(self, count: int) -> None:
        while sum((await asyncio.to_thread(heads, self.system.database_url)).values()) < count:
            await asyncio.sleep(0.1)


_ENDED = "SELECT count(*) FROM events WHERE event_type = 'run.completed'"


async def watch(system: TwoEdges, digest: str) -> Day:
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx2.AsyncClient(timeout=30.0, limits=limits, trust_env=False) as http:
        crowd = Crowd((system.connection, system.second), 2 * WAVE, http, random.Random(SEED))
        async with asyncio.timeout(150), asyncio.TaskGroup() as group:
            day = Day(system, digest, crowd, group)
            group.create_task(day.pass_by())
    return day


@pytest.mark.timeout(300)
def test_two_hundred_clients_on_two_edges_see_every_event_once_and_in_order(
    two_edges: TwoEdges, model_server: ModelServer, tmp_path: Path
) -> None:
    model_server.script = line_writer(CALLS, model_seconds=1.0)
    day = asyncio.run(watch(two_edges, upload(client(two_edges), EMPTY, tmp_path)))
    truth, counts = heads(two_edges.database_url), day.crowd.counts
    connections = sum(watcher.connections for watcher in day.watchers)
    print(
        f"\nseed {SEED}: {sum(truth.values())} events, {len(day.watchers)} clients, {connections} connections, "
        f"{day.ended_before_the_kill} runs had ended before the kill; {dict(counts)}"
    )

    assert (len(truth), len(day.watchers)) == (2 * WAVE, 200)
    in_order = next(watcher.seen for watcher in day.watchers if watcher.run_id is None)
    for watcher in day.watchers:
        for run_id in truth if watcher.run_id is None else [watcher.run_id]:
            versions = [version for run, version in watcher.seen if run == run_id]
            assert versions == list(range(1, truth[run_id] + 1))
        assert watcher.run_id is not None or watcher.seen == in_order, "the feed is the same for all"
    assert day.exit_status == 0
    assert day.ended_before_the_kill < 2 * WAVE, "the second edge died too late to matter"
    assert connections > 2 * len(day.watchers)
    assert counts["tickets"] > 0
    assert counts["sse: reconnect"] > 0
    assert counts["websocket: reconnect"] > 0
    assert counts["websocket closed: 1012"] > 0
