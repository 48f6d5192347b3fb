"""`codeagent replay`: a run that really was, another version over HTTP, and what comes of both."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from codeagent.agent.recording import steps_of
from codeagent.cli.main import app
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.messages.commands import SubmitRun
from codeagent.messages.envelope import Message
from codeagent.workers.step import StepLoop
from tests.golden import recording
from tests.integration.edge.defined_agents import define
from tests.integration.edge.gateway import MINE, Edge, Keys, running_edge
from tests.integration.workers.system import Mailbox

Command = Callable[..., Awaitable[Result]]
RUN_ID = recording("success")[0].envelope.key


PROVIDERS = [
    {
        "name": "priced",
        "kind": "openai",
        "base_url": "http://127.0.0.1:9/v1",
        "models": ["big"],
        "prices": {"big": {"input_usd": "2", "output_usd": "20", "cache_read_usd": "1"}},
    },
    {"name": "any", "kind": "openai", "base_url": "http://127.0.0.1:9/v1"},
]


@pytest.fixture
async def edge(newest_database_url: str, tmp_path: Path, file_keys: Keys) -> AsyncIterator[Edge]:
    """With a model whose prices are known, and a provider of any model."""
    file = tmp_path / "providers.json"
    file.write_text(json.dumps(PROVIDERS))
    async with running_edge(newest_database_url, tmp_path, file_keys, providers_file=file) as running:
        yield running


@pytest.fixture
async def worker(newest_database_url: str) -> AsyncIterator[StepLoop]:
    database = Database(newest_database_url)
    yield StepLoop(database, EventLog(database), Mailbox(), events_topic="unused")
    await database.close()


@pytest.fixture
def command(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("CODEAGENT_URL", str(edge.http.base_url))

    async def invoke(*words: object, key: str = edge.keys.owner) -> Result:
        monkeypatch.setenv("CODEAGENT_API_KEY", key)
        return await asyncio.to_thread(CliRunner().invoke, app, ["replay", *(str(word) for word in words)])

    return invoke


async def run_of(worker: StepLoop, steps: int | None = None, name: str = "success") -> None:
    """A worker decides a recorded run anew, for the caller's tenant and with the installation's model."""
    for step in steps_of(recording(name))[:steps]:
        data = step.message.data
        if isinstance(data, SubmitRun):
            data = data.model_copy(update={"model": "builtin/repair"})
        await worker.handle(Message(replace(step.message.envelope, tenant_id=MINE), data))


async def test_a_version_that_says_the_same_decides_the_same(edge: Edge, command: Command, worker: StepLoop) -> None:
    await run_of(worker)
    await define(edge, "twin", {})
    done = await command(RUN_ID, "--agent", "twin@1")
    assert done.exit_code == 0, done.output
    assert "no divergence" in done.stdout
    assert "10 of 10 decisions compared" in done.stdout


async def test_the_first_divergence_is_told_and_is_an_exit_status(
    edge: Edge, command: Command, worker: StepLoop
) -> None:
    await run_of(worker)
    version = {"tools": ["read_file", "shell"], "instructions": "Change nothing.", "limits": {"max_steps": 9}}
    await define(edge, "reader", version)
    done = await command(RUN_ID, "--agent", "reader@1")
    assert done.exit_code == 4, done.output
    assert "first divergence: step 2, on provider.result after event 9, another action" in done.stdout
    assert "recorded  run_tool edit_file" in done.stdout
    assert "other     refuse_call edit_file unsupported_tool" in done.stdout
    assert "request differs from step 1 on, in its instructions and tools" in done.stdout
    assert "/limits/max_steps: 50 -> 9" in done.stdout


async def test_the_record_is_one_line_of_json(edge: Edge, command: Command, worker: StepLoop) -> None:
    await run_of(worker)
    await define(edge, "reader", {"approvals": {"tools": ["shell"], "expires_seconds": 60}})
    done = await command(RUN_ID, "--agent", "reader@1", "--json")
    assert done.exit_code == 4, done.output
    record = json.loads(done.stdout)
    assert (record["run_id"], record["agent"], record["other_agent"]) == (RUN_ID, "coder@1", "reader@1")
    assert record["status"] == "completed"
    first = record["first_divergence"]
    assert (first["kind"], first["step"]) == ("action", 3)
    assert (first["recorded"]["action"], first["other"]["action"]) == ("run_tool", "ask")
    assert json.loads(first["other"]["arguments"]) == {"command": "pytest"}
    assert [change["pointer"] for change in record["changes"]] == ["/approvals"]
    assert record["request_differs"] is None
    assert record["cost"]["replies"] == 3


async def test_tools_of_servers_are_the_other_versions(edge: Edge, command: Command, worker: StepLoop) -> None:
    await run_of(worker)
    search = {"name": "search", "description": "Search the docs.", "input_schema": {"type": "object"}}
    await define(edge, "helped", {"mcp": [{"server": "docs", "tools": [search]}]})
    done = await command(RUN_ID, "--agent", "helped@1")
    assert done.exit_code == 0, done.output
    assert '/mcp/docs: null -> "sha256:' in done.stdout
    assert "request differs from step 1 on, in its tools" in done.stdout


async def test_the_cost_is_told_by_the_prices_of_the_other_model_or_as_unknown(
    edge: Edge, command: Command, worker: StepLoop
) -> None:
    await run_of(worker)
    await define(edge, "other", {"model": "priced/big"}, {"model": "any/one"})
    cost = json.loads((await command(RUN_ID, "--agent", "other@1", "--json")).stdout)["cost"]
    # 3,600 tokens in, of them 1,200 from the cache, and 240 out.
    assert cost["recorded_usd"] == "0.0084"
    assert (cost["other_usd"], cost["difference_usd"]) == ("0.0108", "0.0024")
    told = await command(RUN_ID, "--agent", "other@2")
    assert "with any/one unknown USD, difference unknown" in told.stdout
    assert '/model: "builtin/repair" -> "any/one"' in told.stdout


async def test_what_cannot_be_replayed_is_refused_by_name(edge: Edge, command: Command, worker: StepLoop) -> None:
    await define(edge, "twin", {})
    await run_of(worker, steps=4)
    for words, status, code in (
        ((RUN_ID, "--agent", "twin@1"), 1, "run_not_ended"),
        ((RUN_ID, "--agent", "twin"), 2, "malformed_agent"),
        (("run_00000000000000000000000009", "--agent", "twin@1"), 2, "not_found"),
    ):
        done = await command(*words)
        assert (done.exit_code, f"({code})" in done.stderr, done.stdout) == (status, True, ""), done.output


async def test_versions_that_are_not_there_and_runs_of_others_are_not_found(
    edge: Edge, command: Command, worker: StepLoop
) -> None:
    await run_of(worker)
    await define(edge, "twin", {})
    assert "(not_found)" in (await command(RUN_ID, "--agent", "twin@2")).stderr
    assert "(not_found)" in (await command(RUN_ID, "--agent", "coder@1", key=edge.keys.stranger)).stderr
    powerless = await command(RUN_ID, "--agent", "twin@1", key=edge.keys.powerless)
    assert (powerless.exit_code, "(insufficient_scope)" in powerless.stderr) == (2, True)


async def test_without_a_divergence_there_is_nothing_to_go_on_with(
    edge: Edge, command: Command, worker: StepLoop
) -> None:
    await run_of(worker)
    await define(edge, "twin", {})
    done = await command(RUN_ID, "--agent", "twin@1", "--live")
    assert done.exit_code == 0, done.output
    assert "nothing to go on with: there is no divergence" in done.stdout
    done = await command(RUN_ID, "--agent", "twin@1", "--live", "--json")
    assert (done.exit_code, json.loads(done.stdout)["live"]) == (0, None)
    assert await runs(edge) == [RUN_ID]


async def test_where_the_other_version_ends_the_run_nothing_goes_on(
    edge: Edge, command: Command, worker: StepLoop
) -> None:
    await run_of(worker)
    await define(edge, "brief", {"limits": {"max_steps": 2}})
    done = await command(RUN_ID, "--agent", "brief@1", "--live")
    assert done.exit_code == 4, done.output
    assert "nothing to go on with: the other version ends the run there" in done.stdout
    assert await runs(edge) == [RUN_ID]


async def test_what_cannot_go_on_is_refused_after_the_divergence_is_told(
    edge: Edge, command: Command, worker: StepLoop
) -> None:
    await run_of(worker)
    await define(edge, "reader", {"tools": ["read_file", "shell"]})
    done = await command(RUN_ID, "--agent", "reader@1", "--live")
    assert (done.exit_code, "(artifact_gone)" in done.stderr) == (2, True), done.output
    assert "first divergence: step 2" in done.stdout
    assert await runs(edge) == [RUN_ID]


async def runs(edge: Edge) -> list[str]:
    """Those that were ever submitted."""
    rows = await edge.database.fetch(
        "SELECT run_id FROM submissions UNION SELECT substr(stream_id, 5) FROM events WHERE stream_id LIKE 'run-%'",
        tenant=MINE,
    )
    return [row["run_id"] for row in rows]
