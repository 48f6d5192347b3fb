"""Clients that do not read, that send too much, and servers that stop: what each of them costs, and whom."""

from __future__ import annotations

import asyncio
import socket as sockets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import InvalidStatus

from codeagent.cli import websocket
from codeagent.edge.context import SocketLimits
from codeagent.eventlog.database import Database
from tests.integration.edge.served import ServedEdge, Socket, served_edge
from tests.integration.edge.test_stream import delta, live
from tests.integration.edge.test_websocket import masked, still_lives, working_run
from tests.integration.eventlog.steps import TENANT, commit_step, started, step

TEXT, PING = 0x81, 0x89
KILOBYTE = "x" * 1_000


@asynccontextmanager
async def lazy(served: ServedEdge) -> AsyncIterator[Socket]:
    """A client whose machine takes little that it has not read."""
    plain = sockets.socket()
    plain.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 8_192)
    plain.setblocking(False)
    address = urlsplit(served.url)
    await asyncio.get_running_loop().sock_connect(plain, (address.hostname, address.port))
    async with served.session(sock=plain, max_queue=1, close_timeout=0.1) as socket:
        yield socket


async def stalled(served: ServedEdge, run_id: str) -> None:
    """Floods until the server cannot write any more to the one that follows the run."""
    [subscriber] = served.hub._subscribers[run_id]
    async with asyncio.timeout(20):
        while not subscriber.dropped:
            for _ in range(200):
                served.hub.receive(delta(run_id, KILOBYTE))
            await asyncio.sleep(0)


async def test_a_slow_client_loses_deltas_is_told_and_loses_no_event(served: ServedEdge, writer: Database) -> None:
    run_id = await working_run(writer, 1)
    async with lazy(served) as slow, served.session() as quick:
        await slow.send(type="subscribe", run_id=run_id)
        await slow.events(1)
        await stalled(served, run_id)
        await quick.send(type="subscribe", run_id=run_id)
        reading = asyncio.create_task(quick.events(51))
        for version in range(1, 51):
            made = step(run_id, version, [started()])
            await commit_step(writer, made)
            served.hub.receive(live(made, 0))
        assert [frame["position"] for frame in await reading] == [str(version) for version in range(1, 52)]
        assert (await slow.until("stream.lagging"))["dropped"] > 0
        assert [frame["position"] for frame in await slow.events(50)] == [str(version) for version in range(2, 52)]


async def test_a_client_that_takes_nothing_is_closed_and_can_tell_why(
    module_database_url: str, writer: Database
) -> None:
    run_id = await working_run(writer, 1)
    async with (
        served_edge(module_database_url, sockets=SocketLimits(send_seconds=0.5)) as served,
        lazy(served) as slow,
        served.session() as witness,
    ):
        await slow.send(type="subscribe", run_id=run_id)
        await slow.events(1)
        await stalled(served, run_id)
        connections = served.server._server.server_state.connections
        async with asyncio.timeout(10):
            while not any(getattr(connection, "close_sent", False) for connection in connections):
                await asyncio.sleep(0.02)
        assert await still_lives(witness)
        assert await slow.closed() == (1013, "too_slow")


async def test_a_client_that_never_reads_again_is_not_kept(
    served: ServedEdge, writer: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "ABORT_SECONDS", 0.2)
    run_id = await working_run(writer, 1)
    assert served.server is not None
    connections = served.server._server.server_state.connections
    async with lazy(served) as slow:
        await slow.send(type="subscribe", run_id=run_id)
        await slow.events(1)
        await stalled(served, run_id)
        served.revoke("mine")
        async with asyncio.timeout(15):
            while connections:
                await asyncio.sleep(0.02)


async def test_pongs_for_a_client_that_does_not_read_are_not_kept(served: ServedEdge, writer: Database) -> None:
    run_id = await working_run(writer, 1)
    assert served.server is not None
    async with lazy(served) as slow:
        await slow.send(type="subscribe", run_id=run_id)
        await slow.events(1)
        await stalled(served, run_id)
        [connection] = served.server._server.server_state.connections
        before = connection.transport.get_write_buffer_size()
        pings = masked(PING, b"p" * 125) * 100
        for _ in range(200):
            slow.connection.transport.write(pings)
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            while slow.connection.transport.get_write_buffer_size():
                await asyncio.sleep(0.01)
        assert connection.transport.get_write_buffer_size() - before < 100_000


async def test_a_window_is_filled_and_moves_with_what_is_acknowledged(served: ServedEdge, writer: Database) -> None:
    run_id = await working_run(writer, 6)
    async with served.session() as socket:
        await socket.send(type="subscribe", subscription="s", run_id=run_id, window=2)
        assert [frame["position"] for frame in await socket.events(2)] == ["1", "2"]
        await socket.send(type="ping")
        assert (await socket.next())["type"] == "pong"
        await socket.send(type="ack", subscription="s", position="2")
        assert [frame["position"] for frame in await socket.events(2)] == ["3", "4"]
        await socket.send(type="ack", subscription="s", position="3")
        assert [frame["position"] for frame in await socket.events(1)] == ["5"]
        await socket.send(type="ack", subscription="s", position="3")
        assert (await socket.until("error"))["code"] == "unknown_position"
        await socket.send(type="unsubscribe", subscription="s")
        assert (await socket.until("stream.end"))["reason"] == "unsubscribed"


@pytest.mark.parametrize(
    "text",
    [
        b'{"type": "ping"}',
        b'{"type": "subscribe", "run_id": "run_00000000000000000000000000"}',
        b'{"type": "unsubscribe", "subscription": "none"}',
    ],
    ids=["pings", "subscriptions", "refusals"],
)
async def test_ten_thousand_frames_of_one_client_cost_others_nothing(
    served: ServedEdge, writer: Database, text: bytes
) -> None:
    run_id = await working_run(writer, 1)
    async with served.session() as hostile, served.session() as witness:
        await witness.send(type="subscribe", run_id=run_id)
        await witness.events(1)
        closing = asyncio.create_task(hostile.closed())
        for _ in range(100):
            hostile.connection.transport.write(masked(TEXT, text) * 100)
        begun, rounds = time.monotonic(), 0
        while not closing.done():
            assert await still_lives(witness)
            rounds += 1
            await asyncio.sleep(0.01)  # within its own budget
        assert await closing == (4429, "too_many_frames")
        assert rounds > 1, f"the witness was answered once in {time.monotonic() - begun:.1f} s"
        made = step(run_id, 1, [started()])
        await commit_step(writer, made)
        served.hub.receive(live(made, 0))
        assert [frame["position"] for frame in await witness.events(1)] == ["2"]


async def test_a_server_that_stops_tells_every_client_to_connect_elsewhere(
    served: ServedEdge, writer: Database
) -> None:
    run_id = await working_run(writer)
    streams = [f"/v1/runs/{run_id}/events", "/v1/events?after=latest"]
    async with served.session() as socket, served.session() as idle, served.socket() as silent, served.http() as http:
        await socket.send(type="subscribe", subscription="run", run_id=run_id)
        await socket.send(type="subscribe", subscription="feed", feed=True, after="latest", window=1)
        await socket.events(2)
        headers = {"Accept": "text/event-stream"}
        following = [asyncio.create_task(http.get(path, headers=headers)) for path in streams]
        async with asyncio.timeout(10):
            while streams_open(served, run_id) != (2, 2):
                await asyncio.sleep(0.01)
        stopping = asyncio.create_task(served.hub.stop())
        ends = [await socket.until("stream.end") for _ in range(2)]
        assert {(end["subscription"], end["reason"]) for end in ends} == {("run", "reconnect"), ("feed", "reconnect")}
        assert await socket.closed() == (1012, "reconnect")
        assert await idle.closed() == (1012, "reconnect")
        for answer in await asyncio.gather(*following):
            assert answer.text.rstrip().endswith('event: stream.end\r\ndata: {"reason":"reconnect"}')
        await asyncio.wait_for(stopping, 3)
        with pytest.raises(InvalidStatus) as refused:
            async with served.socket():
                pass
        assert refused.value.response.status_code == 503
        await served.server.stop()
        assert (await silent.closed())[0] == 1012


def streams_open(served: ServedEdge, run_id: str) -> tuple[int, int]:
    """Of a run, and of the tenant's feed."""
    feed = served.hub.feeds._feeds.get(TENANT)
    return len(served.hub._subscribers.get(run_id, ())), 0 if feed is None else len(feed.subscribers)
