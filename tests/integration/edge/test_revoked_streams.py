"""A credential that ends on one edge ends on all, with every stream that it has opened."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from codeagent import clock
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author, ControlPlane
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.identity.revocations import Kind, revoke
from tests.integration.edge.gateway import MINE, Edge, Keys, running_edge
from tests.integration.eventlog.steps import commit_step, new_run, started, step

WITHIN_SECONDS = 1.0


@pytest.fixture
async def run_id(newest_database_url: str) -> str:
    """A run of the tenant that goes on and on."""
    database = Database(newest_database_url, connections=1)
    run_id = new_run()
    await commit_step(database, replace(step(run_id, 0, [started()]), tenant_id=MINE))
    await database.close()
    return run_id


@asynccontextmanager
async def stream(edge: Edge, key: str, run_id: str) -> AsyncIterator[AsyncIterator[str]]:
    """Lines of a run's events; the first event has been read, so that the stream is open."""
    headers = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream"}
    async with edge.http.stream("GET", f"/v1/runs/{run_id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        lines = answer.aiter_lines()
        async for line in lines:
            if line == "event: run.started":
                break
        yield lines


async def end_of(lines: AsyncIterator[str]) -> str:
    """The reason that `stream.end` gives."""
    name = ""
    async with asyncio.timeout(20):
        async for line in lines:
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data" and name == "stream.end":
                return str(json.loads(value)["reason"])
    raise AssertionError("the stream ended without saying why")


async def refused(edge: Edge, key: str) -> None:
    async with asyncio.timeout(20):
        while await edge.accepts(key):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("deaf", [False, True], ids=["told", "has to look"])
async def test_a_key_revoked_on_one_edge_ends_on_the_other_within_a_second(
    newest_database_url: str, tmp_path: Path, file_keys: Keys, run_id: str, deaf: bool
) -> None:
    taken: list[float] = []
    async with (
        running_edge(newest_database_url, tmp_path, file_keys) as first,
        running_edge(newest_database_url, tmp_path, file_keys, deaf=deaf) as other,
    ):
        # The best of three: a busy machine may stop any process for longer than this.
        for _ in range(3):
            made = await first.make_key(file_keys.owner)
            async with stream(other, made["key"], run_id) as lines:
                assert await other.accepts(made["key"])
                begun = time.monotonic()
                assert (await first.revoke(file_keys.owner, made["id"])).status_code == 204
                _, reason = await asyncio.gather(refused(other, made["key"]), end_of(lines))
                taken.append(time.monotonic() - begun)
                assert reason == "revoked"
    assert min(taken) < WITHIN_SECONDS


async def test_a_whole_tenant_is_shut_out_at_once_but_for_the_operators_own_keys(
    newest_database_url: str, tmp_path: Path, file_keys: Keys, run_id: str
) -> None:
    async with running_edge(newest_database_url, tmp_path, file_keys) as edge:
        mine, theirs = await edge.make_key(file_keys.owner), await edge.make_key(file_keys.stranger)
        async with stream(edge, mine["key"], run_id) as lines:
            author = Author(MINE, "system", "operator", clock.new_uuid())
            walled = Database(newest_database_url, connections=1, role=EDGE_ROLE)
            async with ControlPlane(walled).change(author) as change:
                await revoke(change, Kind.TENANT, MINE, clock.now() + timedelta(hours=1))
            await walled.close()
            assert await end_of(lines) == "revoked"
        assert not await edge.accepts(mine["key"])
        assert await edge.accepts(theirs["key"])
        assert await edge.accepts(file_keys.owner)


async def test_a_stream_ends_when_its_credential_does(edge: Edge, run_id: str) -> None:
    ends = clock.now() + timedelta(seconds=1.5)
    made = await edge.make_key(edge.keys.owner, expires_at=ends.isoformat())
    async with stream(edge, made["key"], run_id) as lines:
        assert await end_of(lines) == "token_expired"
    assert clock.now() >= ends


async def test_a_stream_of_a_rotated_key_ends_with_the_overlap(edge: Edge, run_id: str) -> None:
    made = await edge.make_key(edge.keys.owner)
    async with stream(edge, made["key"], run_id) as lines:
        rotated = await rotate(edge, made, overlap_seconds=1)
        assert await end_of(lines) == "revoked"
    assert clock.now().isoformat() >= rotated["created_at"]
    async with stream(edge, rotated["key"], run_id):
        pass


async def rotate(edge: Edge, key: dict[str, Any], **body: Any) -> dict[str, Any]:
    path = f"/v1/api-keys/{key['id']}/rotate"
    answer: httpx2.Response = await edge.call(
        edge.keys.owner, "POST", path, json=body, headers={"If-Match": f'"{key["version"]}"'}
    )
    assert answer.status_code == 201
    return dict(answer.json())


@pytest.mark.parametrize(("strict", "status"), [(True, 503), (False, 200)], ids=["fails closed", "stays open"])
async def test_an_edge_that_cannot_look_is_not_ready_and_refuses_what_might_be_revoked(
    newest_database_url: str, tmp_path: Path, file_keys: Keys, strict: bool, status: int
) -> None:
    path = f"/v1/artifacts/{await LocalArtifactStore(tmp_path / 'artifacts').put(MINE, b'a patch')}"
    options = {"revocation_stale_seconds": 1, "revocation_fail_closed": strict}
    async with running_edge(newest_database_url, tmp_path, file_keys, **options) as edge:
        made = await edge.make_key(file_keys.owner)
        assert (await edge.call(made["key"], "GET", path)).status_code == 200
        async with asyncio.timeout(20):
            # A busy machine may be a second late with a look, for a moment.
            while (await edge.http.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.05)
        edge.database.url = "postgresql://nobody:x@127.0.0.1:1/none"
        await edge.database.close()
        async with asyncio.timeout(20):
            while (await edge.http.get("/readyz")).status_code == 200:
                await asyncio.sleep(0.05)
        assert (await edge.http.get("/readyz")).json()["checks"] == {"revocations": False}
        # It needs no database, and the key is remembered.
        assert (await edge.call(made["key"], "GET", path)).status_code == status
        assert (await edge.call(file_keys.owner, "GET", path)).status_code == 200
