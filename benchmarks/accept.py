"""Accepted commands a second of one edge, against a bare handler: same body validated, same send awaited."""

from __future__ import annotations

import asyncio
import json
import time
from functools import partial
from pathlib import Path
from statistics import median

import uvicorn
import uvloop
from fastapi import FastAPI

from benchmarks.ground import Ground, in_child
from codeagent import clock
from codeagent.broker.publisher import Publisher
from codeagent.broker.topics import RUN_DELTAS
from codeagent.cli.client import Client
from codeagent.cli.connection import Connection
from codeagent.cli.process import run_process
from codeagent.cli.services import edge
from codeagent.edge.models import RunBody
from codeagent.identity.keys import digest_of_key, new_key
from tests.acceptance.checks import upload
from tests.acceptance.system import free_port, is_ready, wait_until

CONNECTIONS = 32
ROUNDS = 9
SECONDS = 2.0


def measure(ground: Ground) -> dict[str, float]:
    """Requests a second both ways, in short turns that a neighbour's load meets alike, and their ratio."""
    key = new_key()
    keys = ground.directory / "bench-keys.json"
    entry = {"key_id": "k", "sha256": digest_of_key(key), "tenant_id": "ten_bench", "principal_id": "usr_bench"}
    keys.write_text(json.dumps([entry]))
    ports = free_port(), free_port()
    settings = ground.settings.model_copy(update={"api_keys_file": keys, "http_port": ports[0]})
    servers = [
        in_child(lambda: run_process(partial(edge, settings))),
        in_child(lambda: _bare(ground, ports[1])),
    ]
    try:
        wait_until(lambda: is_ready(f"http://127.0.0.1:{ports[0]}"), 30, "the edge")
        wait_until(lambda: is_ready(f"http://127.0.0.1:{ports[1]}"), 30, "the bare handler")
        digest = _upload(ports[0], key)
        rates: dict[int, list[float]] = {port: [] for port in ports}
        for _ in range(ROUNDS):
            for port in ports:
                rates[port].append(asyncio.run(_load(port, key, digest)))
        ours, bare = (median(rates[port][1:]) for port in ports)  # the first of each warms up
        return {"accepted/s": ours, "bare handler/s": bare, "ratio of accepted": ours / bare}
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.join(10)


def _bare(ground: Ground, port: int) -> None:
    """The least that could be done: validate, send, wait for the broker."""
    app, publisher = FastAPI(), Publisher(ground.connection)

    @app.post("/v1/runs", status_code=202)
    async def submit(body: RunBody) -> dict[str, str]:
        run_id = str(clock.new_uuid())
        await publisher.send(RUN_DELTAS, run_id, [], body.model_dump_json().encode())
        return {"id": run_id}

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {"status": "ok"}

    async def main() -> None:
        await publisher.start()
        config = uvicorn.Config(app, port=port, log_config=None, access_log=False)
        await uvicorn.Server(config).serve()

    uvloop.run(main())


def _upload(port: int, key: str) -> str:
    client = Client(Connection(f"http://127.0.0.1:{port}", key))
    try:
        return str(upload(client, {"a": "a"}, Path("/tmp")))
    finally:
        client.close()


async def _load(port: int, key: str, digest: str) -> float:
    body = json.dumps({"task": "measure", "source": {"kind": "archive", "digest": digest}}).encode()
    stop_at = time.perf_counter() + SECONDS
    done = 0

    async def connection() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < stop_at:
            head = (
                f"POST /v1/runs HTTP/1.1\r\nHost: bench\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
                f"Idempotency-Key: {clock.new_uuid()}\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 202"):
                raise AssertionError(answer[:100])
            length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            done += 1
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return done / (time.perf_counter() - started)
