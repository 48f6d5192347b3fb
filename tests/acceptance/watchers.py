"""Clients that follow runs or the feed, over SSE or a WebSocket, and that drop their connection now and then."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx2
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, WebSocketException

from codeagent.cli.client import TERMINAL
from codeagent.cli.connection import Connection

DOWN = (httpx2.TransportError, InvalidHandshake, WebSocketException, OSError, TimeoutError)


@dataclass
class Crowd:
    """What all clients of one test share."""

    edges: tuple[Connection, ...]
    runs: int
    """How many the feed will tell of."""
    http: httpx2.AsyncClient
    chance: random.Random
    counts: Counter[str] = field(default_factory=Counter)

    def edge(self) -> Connection:
        return self.chance.choice(self.edges)

    async def ticket(self) -> str | None:
        """For half of the connections: made by one edge, and shown to any."""
        if self.chance.random() < 0.5:
            return None
        edge = self.edge()
        headers = {"Authorization": f"Bearer {edge.api_key}"}
        answer = await self.http.post(f"{edge.url}/v1/stream-tickets", headers=headers)
        answer.raise_for_status()
        self.counts["tickets"] += 1
        return str(answer.json()["ticket"])


class Refused(Exception):
    """The edge answered, and not with a stream."""


@dataclass
class Watcher:
    """One client. It resumes from the last position it has, and keeps no other memory of what it has seen."""

    crowd: Crowd
    run_id: str | None
    """None for the feed."""
    position: str = ""
    seen: list[tuple[str, int]] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    connections: int = 0

    @property
    def done(self) -> bool:
        return len(self.ended) == (self.crowd.runs if self.run_id is None else 1)

    def take(self, position: str, event: dict[str, Any]) -> None:
        self.position = position
        self.seen.append((event["partitionkey"], int(event["sequence"])))
        if event["type"].removeprefix("io.codeagent.").rpartition(".")[0] in TERMINAL:
            self.ended.add(event["partitionkey"])

    async def follow(self) -> None:
        """Until everything has ended."""
        while not self.done:
            self.connections += 1
            patience = self.crowd.chance.randint(3, 40)
            try:
                await self.once(self.crowd.edge(), patience)
            except ConnectionClosed as error:
                self.crowd.counts[f"websocket closed: {error.rcvd.code if error.rcvd else 'torn'}"] += 1
            except DOWN as error:
                self.crowd.counts[type(error).__name__] += 1
            except (Refused, httpx2.HTTPStatusError):
                self.crowd.counts["refused"] += 1
            await asyncio.sleep(self.crowd.chance.uniform(0.05, 0.3))

    async def once(self, edge: Connection, patience: int) -> None:
        """One connection, which is dropped after `patience` events."""
        raise NotImplementedError


class SseWatcher(Watcher):
    async def once(self, edge: Connection, patience: int) -> None:
        path = "/v1/events" if self.run_id is None else f"/v1/runs/{self.run_id}/events"
        headers, ticket = {"Accept": "text/event-stream"}, await self.crowd.ticket()
        if ticket is None:
            headers["Authorization"] = f"Bearer {edge.api_key}"
        if self.position:
            headers["Last-Event-ID"] = self.position
        query = {} if ticket is None else {"ticket": ticket}
        async with self.crowd.http.stream("GET", f"{edge.url}{path}", params=query, headers=headers) as answer:
            if answer.status_code != 200:
                raise Refused
            fields: dict[str, str] = {}
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if line:
                    fields[name] = value
                    continue
                if "id" in fields:
                    self.take(fields["id"], json.loads(fields["data"]))
                    patience -= 1
                elif fields.get("event") == "stream.end":
                    self.crowd.counts[f"sse: {json.loads(fields['data'])['reason']}"] += 1
                fields = {}
                if self.done or not patience:
                    return


class SocketWatcher(Watcher):
    async def once(self, edge: Connection, patience: int) -> None:
        wanted = {"feed": True} if self.run_id is None else {"run_id": self.run_id}
        token = await self.crowd.ticket() or edge.api_key
        url = f"{edge.url.replace('http', 'ws')}/v1/ws"
        async with connect(url, subprotocols=["cloudevents.json"], proxy=None, close_timeout=0.5) as socket:  # type: ignore[list-item]
            await socket.send(json.dumps({"type": "auth", "token": token}))
            await socket.send(json.dumps({"type": "subscribe", **wanted, "after": self.position}))
            async for text in socket:
                frame = json.loads(text)
                if frame["type"] == "event":
                    self.take(frame["position"], frame["event"])
                    patience -= 1
                elif frame["type"] == "stream.end":
                    self.crowd.counts[f"websocket: {frame['reason']}"] += 1
                elif frame["type"] == "error":
                    raise AssertionError(f"refused: {frame}")
                if self.done or not patience:
                    if self.crowd.chance.random() < 0.5:
                        socket.transport.abort()
                    return
