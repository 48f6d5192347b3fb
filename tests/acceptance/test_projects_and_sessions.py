"""A session on a private repository, through real processes: each run goes on from the one before, and the token that
opens the repository is nowhere but with the server it belongs to."""

from __future__ import annotations

import asyncio
import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from aiokafka import AIOKafkaConsumer

from codeagent.cli.client import Client
from tests.acceptance.checks import Watched, ledgers, problems_in_log
from tests.acceptance.conversations import tool
from tests.acceptance.system import UpSystem, client
from tests.acceptance.test_git_source import server, trusting_system  # noqa: F401  fixtures
from tests.servers.git_server import GitServer
from tests.servers.model_server import ModelServer
from tests.servers.script import Reply, Script

TOKEN = "glpat-5up3r-not-to-be-seen"
WRONG = "glpat-wr0ng-not-to-be-seen"


@pytest.fixture
def http(trusting_system: UpSystem) -> Iterator[httpx2.Client]:  # noqa: F811
    connection = trusting_system.connection
    headers = {"Authorization": f"Bearer {connection.api_key}"}
    with httpx2.Client(base_url=connection.url, headers=headers, timeout=30.0, trust_env=False) as opened:
        yield opened


def post(http: httpx2.Client, path: str, **body: Any) -> dict[str, Any]:
    answer = http.post(path, json=body, headers={"Idempotency-Key": str(uuid.uuid4())})
    assert answer.is_success, answer.text
    return dict(answer.json())


def ended(api: Client, run: dict[str, Any]) -> dict[str, Any]:
    watched = Watched(str(run["id"]))
    watched.follow(api)
    assert watched.is_contiguous_to_its_end()
    return api.run(watched.run_id)


def patch_of(api: Client, run: dict[str, Any]) -> str:
    assert run["status"] == "completed", run
    return api.artifact(run["artifacts"][0]["digest"]).decode()


def two_messages() -> Script:
    """Each changes a file and submits; the second looks at what the first has left."""
    return Script(
        [
            Reply(calls=(tool("shell", 0, command="echo first > one.txt"),)),
            Reply(calls=(tool("submit", 1, summary="There is one."),)),
            Reply(calls=(tool("shell", 2, command="cat one.txt && echo second > two.txt"),)),
            Reply(calls=(tool("submit", 3, summary="There are two."),)),
        ]
    )


@pytest.mark.timeout(240)
def test_a_session_goes_on_where_it_was_on_a_repository_that_only_a_token_opens(
    trusting_system: UpSystem,  # noqa: F811
    server: GitServer,  # noqa: F811
    model_server: ModelServer,
    http: httpx2.Client,
) -> None:
    system, api = trusting_system, client(trusting_system)
    model_server.script, server.password = two_messages(), f"deploy:{TOKEN}"
    project = post(http, "/v1/projects", name="private", repository=server.url(), model="local/scripted")
    credential = f"/v1/projects/{project['id']}/git-credential"

    assert http.put(credential, json={"username": "deploy", "token": WRONG}).status_code == 204
    refused = ended(api, post(http, "/v1/runs", task="t", project_id=project["id"]))
    assert (refused["status"], refused["status_reason"]) == ("failed", "source_credential_refused")

    assert http.put(credential, json={"username": "deploy", "token": TOKEN}).status_code == 204
    session = post(http, "/v1/sessions", project_id=project["id"])
    messages = f"/v1/sessions/{session['id']}/messages"
    first = ended(api, post(http, messages, content="Make one."))
    assert "+first" in patch_of(api, first)

    # Neither the worker, nor its helper, nor anything on their disk is there when the session goes on.
    for left in (system.data_dir / "sandboxes" / "workspaces").iterdir():
        shutil.rmtree(left, ignore_errors=True)
    system.kill("sandboxd")
    system.kill("sandbox-worker")
    asked = len(server.requests)
    second = ended(api, post(http, messages, content="Make another."))
    patch = patch_of(api, second)
    assert "+first" in patch
    assert "+second" in patch
    assert len(server.requests) == asked, "it goes on from the commit that it began with"
    told = json.dumps(model_server.received[-1].body["messages"])
    assert "Make one." in told
    assert "There is one." in told
    assert problems_in_log(system.database_url, second["id"]) == []
    assert ledgers(system.database_url) == {"effects": 0, "outbox": 0}

    assert set(server.shown) == {f"deploy:{WRONG}", f"deploy:{TOKEN}"}
    for secret in (TOKEN, WRONG):
        assert asyncio.run(where_in_the_database(system.database_url, secret)) == []
        assert [str(path) for path in files_of(system) if secret.encode() in path.read_bytes()] == []
    records = asyncio.run(records_of(system))
    assert any(b"run.submit" in record for record in records)
    assert not any(secret.encode() in record for record in records for secret in (TOKEN, WRONG))


async def where_in_the_database(url: str, secret: str) -> list[str]:
    """The tables that have a row with this text in it, bytes as they are included."""
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        found = []
        for table in (row["tablename"] for row in tables):
            rows = await connection.fetch(
                f"SELECT 1 FROM {table} t WHERE t::text LIKE $1 OR t::text LIKE $2 LIMIT 1",
                f"%{secret}%",
                f"%{secret.encode().hex()}%",
            )
            found += [table] if rows else []
        return found
    finally:
        await connection.close()


def files_of(system: UpSystem) -> list[Path]:
    """Logs, artifacts, and whatever else is on the disk but the database's own files."""
    place = system.data_dir.parent
    return [
        path
        for path in place.rglob("*")
        if path.is_file() and not {"postgres", "runtime"} & set(path.relative_to(place).parts)
    ]


async def records_of(system: UpSystem) -> list[bytes]:
    """Every record of every topic, headers included."""
    servers = json.loads((system.data_dir / "settings.json").read_text())["kafka_bootstrap_servers"]
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.subscribe(pattern=r"^codeagent\..*")
        records: list[bytes] = []
        quiet = 0
        while quiet < 5:
            batch = await consumer.getmany(timeout_ms=500)
            quiet = 0 if batch else quiet + 1
            for record in (record for group in batch.values() for record in group):
                records.append(b"\n".join([record.value or b"", *(value for _, value in record.headers)]))
        return records
    finally:
        await consumer.stop()
