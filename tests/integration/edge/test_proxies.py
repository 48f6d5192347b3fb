"""Behind a proxy: every limit that goes by address goes by the client's, and by nobody's word but a trusted proxy's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio.client import connect

from codeagent.clock import new_uuid
from codeagent.messages.ids import typed_id
from tests.integration.edge.gateway import Edge, Keys, running_edge
from tests.integration.edge.served import SUBPROTOCOL, Socket

HOME, AWAY = "192.0.2.7", "203.0.113.9"
STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
async def proxied(newest_database_url: str, tmp_path: Path, file_keys: Keys) -> AsyncIterator[Edge]:
    """An edge whose proxy is this test, as far as it says that it is one."""
    trusted = ["127.0.0.0/8"]
    async with running_edge(newest_database_url, tmp_path, file_keys, trusted_proxies=trusted) as edge:
        yield edge


def through(address: str) -> dict[str, str]:
    """What a proxy says of a client that has lied about itself."""
    return {"X-Forwarded-For": f"{HOME}, {address}"}


async def bound_key(edge: Edge) -> str:
    """A key that is good at home only."""
    return str((await edge.make_key(edge.keys.owner, networks=["192.0.2.0/24"]))["key"])


async def stream(edge: Edge, ticket: str, address: str) -> httpx2.Response:
    path = f"/v1/runs/{typed_id('run', new_uuid())}/events?ticket={ticket}"
    return await edge.http.get(path, headers={**STREAM, **through(address)})


async def greeted(edge: Edge, token: str, address: str) -> str:
    """What a WebSocket from there is told first: `ready`, or why it is closed."""
    url = str(edge.http.base_url).replace("http", "ws").rstrip("/") + "/v1/ws"
    headers = through(address)
    async with connect(url, subprotocols=[SUBPROTOCOL], proxy=None, additional_headers=headers) as connection:  # type: ignore[list-item]
        socket = Socket(connection)
        await socket.send(type="auth", token=token)
        try:
            return str((await socket.next())["type"])
        except Exception:
            return (await socket.closed())[1]


async def test_a_key_is_held_to_its_networks_by_the_clients_address(proxied: Edge) -> None:
    key = await bound_key(proxied)
    for address, status in ((HOME, 200), (AWAY, 403)):
        assert (await proxied.call(key, "GET", "/v1/runs", headers=through(address))).status_code == status


async def test_a_stranger_is_not_believed(edge: Edge) -> None:
    key = await bound_key(edge)
    assert (await edge.call(key, "GET", "/v1/runs", headers=through(HOME))).status_code == 403
    assert await greeted(edge, key, HOME) == "forbidden"


async def test_so_are_websockets_and_tickets(proxied: Edge) -> None:
    key = await bound_key(proxied)
    assert await greeted(proxied, key, HOME) == "ready"
    assert await greeted(proxied, key, AWAY) == "forbidden"
    for address, expected in ((HOME, "not_found"), (AWAY, "forbidden")):
        made = await proxied.call(key, "POST", "/v1/stream-tickets", headers=through(HOME))
        assert (await stream(proxied, made.json()["ticket"], address)).json()["code"] == expected


async def test_failed_logins_slow_down_the_client_and_not_everybody_behind_the_proxy(proxied: Edge) -> None:
    async def attempt(address: str) -> int:
        body = {
            "client_id": "cli",
            "email": f"{new_uuid()}@example.org",
            "password": "wrong",
            "code_challenge": "x" * 43,
        }
        return (await proxied.http.post("/oauth2/authorize", json=body, headers=through(address))).status_code

    while (status := await attempt(AWAY)) == 400:
        pass
    assert status == 429
    assert await attempt(HOME) == 400
