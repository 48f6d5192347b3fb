"""A run is given a version of its agent when it is accepted, and keeps it: whatever becomes of the agent meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from codeagent.agent.tools import NAMES
from codeagent.agent_registry.canary import Unit
from codeagent.agent_registry.resolver import AgentResolver
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.errors import InvalidInput
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.messages import commands
from codeagent.messages.conversation import AssistantMessage, ToolCall
from codeagent.messages.envelope import Message
from codeagent.messages.values import ApprovalPolicy
from codeagent.providers.breaker import Breaker
from codeagent.providers.retry import ResilientProvider
from codeagent.providers.scripted import ScriptedProvider
from codeagent.workers.deltas import unsent
from codeagent.workers.provider import ProviderPerformer
from tests.integration.edge.defined_agents import GIT, define, move, post, refused, run
from tests.integration.edge.gateway import MINE, Edge
from tests.integration.opened import ordered
from tests.integration.workers.system import Bench, answered

FIRST = {
    "instructions": "Report.",
    "model": "test/small",
    "tools": ["read_file"],
    "limits": {"max_steps": 20, "deadline_seconds": 7_200},
}
SECOND = {"instructions": "Report in verse."}


@pytest.fixture
async def owner(newest_database_url: str) -> AsyncIterator[Database]:
    """The database as workers have it."""
    opened = Database(newest_database_url, connections=4)
    yield opened
    await opened.close()


async def test_a_run_carries_what_its_commands_may_reach(edge: Edge, owner: Database) -> None:
    await define(edge, "builder", {"egress": ["pypi.org"]})
    command = await ordered(owner, (await run(edge, "builder@1")).json()["id"])
    assert command.definition is not None
    assert command.definition.egress == ("pypi.org:443",)


async def test_a_run_carries_all_of_the_version_it_was_given(edge: Edge, owner: Database) -> None:
    agent = await define(edge, "reader", FIRST, SECOND)
    await move(edge, "reader", "versions/1/promote")
    answer = await run(edge, "reader", limits={"max_steps": 5})
    assert answer.status_code == 202, answer.text
    shown = answer.json()
    assert (shown["agent"], shown["agent_version"], shown["model"]) == ("reader", 1, "test/small")
    assert (await edge.call(edge.keys.owner, "GET", answer.headers["location"])).json()["agent_version"] == 1
    command = await ordered(owner, shown["id"])
    version = (await edge.call(edge.keys.owner, "GET", "/v1/agents/reader/versions/1")).json()
    assert command.definition is not None
    assert command.definition.model_dump(mode="json") == {
        "id": agent["id"],
        "digest": version["digest"],
        "instructions": "Report.",
        "tools": ["read_file", "submit"],
        "assignment": {"rule": "active", "by": None, "canary": None, "deprecated": False},
    }
    assert (command.limits.max_steps, command.limits.deadline_seconds, command.limits.max_tokens) == (
        5,
        7_200,
        2_000_000,
    )
    own_model = await run(edge, "reader@1", model="test/large")
    assert own_model.json()["model"] == "test/large"
    other = await ordered(owner, (await run(edge, "reader@2")).json()["id"])
    assert (other.agent, other.agent_version, other.model) == ("reader", 2, "builtin/repair")
    assert other.definition is not None
    assert other.definition.tools == NAMES
    built_in = await ordered(owner, (await run(edge, "coder@1")).json()["id"])
    assert (built_in.agent, built_in.agent_version, built_in.definition) == ("coder", 1, None)


OTHERS = ["test/second", "test/third"]


async def test_what_stands_in_for_a_model_is_named_by_whoever_names_the_model(edge: Edge, owner: Database) -> None:
    await define(edge, "reader", {"model": "test/first", "fallbacks": OTHERS}, {"fallbacks": ["test/second"]}, {})
    cases: list[tuple[str, dict[str, Any], str, list[str]]] = [
        ("reader@1", {}, "test/first", OTHERS),
        ("reader@1", {"model": "test/own"}, "test/own", []),
        ("reader@1", {"model": "test/own", "fallbacks": ["test/x"]}, "test/own", ["test/x"]),
        ("reader@1", {"fallbacks": []}, "test/first", []),
        ("reader@1", {"fallbacks": ["test/first", "test/x", "test/x"]}, "test/first", ["test/x"]),
        ("reader@2", {}, "builtin/repair", ["test/second"]),
        ("reader@3", {}, "builtin/repair", []),
        ("coder", {}, "builtin/repair", []),
    ]
    for agent, said, model, fallbacks in cases:
        answer = await run(edge, agent, **said)
        assert answer.status_code == 202, answer.text
        assert (answer.json()["model"], answer.json()["fallbacks"]) == (model, fallbacks), (agent, said)
        command = await ordered(owner, answer.json()["id"])
        assert command.fallbacks == (tuple(fallbacks) or None)


async def test_a_model_that_is_not_there_stands_in_for_none(edge: Edge) -> None:
    for path, body in (
        ("/v1/runs", {"task": "look", "source": GIT, "fallbacks": ["test/a", "unknown/y"]}),
        ("/v1/agents/reader/versions", {"fallbacks": ["test/a", "unknown/y"]}),
    ):
        if path != "/v1/runs":
            await define(edge, "reader")
        answer = await post(edge, path, body)
        assert refused(answer) == (422, "unsupported_model")
        assert answer.json()["errors"][0]["pointer"] == "/fallbacks/1"
        answer = await post(edge, path, {**body, "fallbacks": ["test/a"] * 5})
        assert refused(answer) == (422, "validation_failed")


async def test_a_run_may_ask_for_less_than_its_agent_allows_and_never_for_more(edge: Edge) -> None:
    await define(edge, "reader", FIRST)
    await move(edge, "reader", "versions/1/promote")
    assert (await run(edge, "reader", limits={"max_steps": 20, "max_tokens": 5_000_000})).status_code == 202
    answer = await run(edge, "reader", limits={"max_steps": 21})
    assert refused(answer) == (422, "limit_exceeded")
    assert answer.json()["errors"][0]["pointer"] == "/limits/max_steps"


async def test_a_run_may_ask_for_more_approvals_than_its_agent_demands_and_never_for_fewer(
    edge: Edge, owner: Database
) -> None:
    demanded = {"tools": ["shell"], "expires_seconds": 600}
    await define(edge, "careful", {"approvals": demanded})
    await move(edge, "careful", "versions/1/promote")
    silent = (await run(edge, "careful")).json()
    assert silent["approvals"] == demanded
    assert (await ordered(owner, silent["id"])).approvals == ApprovalPolicy(tools=("shell",), expires_seconds=600)
    more = {"tools": ["search"], "expires_seconds": 3_600}
    asked = (await run(edge, "careful", approvals=more)).json()
    assert asked["approvals"] == {"tools": ["shell", "search"], "expires_seconds": 600}
    assert (await run(edge, "coder")).json()["approvals"] is None


async def test_a_run_cannot_have_what_is_not_for_new_runs(edge: Edge) -> None:
    await define(edge, "reader", {}, {}, {})
    await define(edge, "gone", {})
    none = (422, "unsupported_agent")
    assert refused(await run(edge, "reader")) == none, "no version is active"
    await move(edge, "reader", "versions/1/promote")
    await move(edge, "reader", "versions/2/retire")
    await move(edge, "gone", "versions/1/promote")
    assert (await run(edge, "gone")).status_code == 202
    await edge.call(edge.keys.owner, "DELETE", "/v1/agents/gone", headers={"If-Match": "*"})
    for name in ("gone", "gone@1", "reader@2", "reader@9", "nobody", "coder@2", "Reader", "reader@0", "reader@", "@1"):
        answer = await run(edge, name)
        assert refused(answer) == none, name
        assert answer.json()["errors"][0]["pointer"] == "/agent"
    theirs = await run(edge, "reader", key=edge.keys.stranger)
    assert refused(theirs) == none


async def test_a_repeat_of_what_was_accepted_is_no_new_run_and_not_refused(edge: Edge) -> None:
    await define(edge, "reader", {})
    await move(edge, "reader", "versions/1/promote")
    body = {"task": "look", "source": GIT, "agent": "reader"}
    first = await post(edge, "/v1/runs", body, "k")
    await edge.call(edge.keys.owner, "DELETE", "/v1/agents/reader", headers={"If-Match": "*"})
    repeat = await post(edge, "/v1/runs", body, "k")
    assert (repeat.status_code, repeat.json()["id"]) == (202, first.json()["id"])
    assert repeat.headers["idempotent-replayed"] == "true"
    for changed, key in ((body, "k2"), ({**body, "task": "another"}, "k")):
        assert refused(await post(edge, "/v1/runs", changed, key)) == (422, "unsupported_agent")


async def test_a_draft_is_tried_by_those_who_may_write_agents(edge: Edge) -> None:
    await define(edge, "reader", {})
    runner = (await edge.make_key(edge.keys.owner, scopes=["runs:write"]))["key"]
    assert (await run(edge, "reader@1")).status_code == 202
    assert refused(await run(edge, "reader@1", key=runner)) == (403, "insufficient_scope")
    await move(edge, "reader", "versions/1/promote")
    assert (await run(edge, "reader@1", key=runner)).status_code == 202


async def test_finding_the_agent_costs_a_run_nothing_or_one_look_up_a_second(edge: Edge) -> None:
    await define(edge, "reader", {})
    await move(edge, "reader", "versions/1/promote")

    async def look_ups(agent: str) -> int:
        edge.database.queries.clear()
        assert (await run(edge, agent)).status_code == 202
        return sum("FROM agents" in query for query in edge.database.queries)

    assert await look_ups("coder") == 0
    assert await look_ups("reader") == 1
    assert await look_ups("reader") == 0


async def test_another_edge_gives_runs_the_new_version_within_a_second(edge: Edge) -> None:
    await define(edge, "reader", {}, {})
    await move(edge, "reader", "versions/1/promote")
    now = 0.0
    elsewhere = AgentResolver(edge.database, monotonic=lambda: now)
    resolve = partial(elsewhere.resolve, MINE, "reader", Unit("principal", "usr_owner"), drafts=False)
    assert (await resolve()).number == 1
    await move(edge, "reader", "versions/2/promote")
    assert (await run(edge, "reader")).json()["agent_version"] == 2, "here at once"
    now = 0.99
    assert (await resolve()).number == 1
    now = 1.0
    assert (await resolve()).number == 2
    await edge.call(edge.keys.owner, "DELETE", "/v1/agents/reader", headers={"If-Match": "*"})
    now = 2.0
    with pytest.raises(InvalidInput, match="archived"):
        await resolve()


async def test_what_happens_to_the_agent_changes_nothing_for_a_run_at_work(
    edge: Edge, owner: Database, tmp_path: Path
) -> None:
    """From the accepted command to the second model call, on real workers, while the version is replaced, retired and
    the agent archived."""
    await define(edge, "reader", FIRST, SECOND)
    await move(edge, "reader", "versions/1/promote")
    run_id = (await run(edge, "reader")).json()["id"]
    model = ScriptedProvider([_calling("read_file", path="README.md"), _calling("shell", command="ls"), "Done."])
    work = _Work(owner, run_id, model, tmp_path)
    await work.begin(await ordered(owner, run_id))
    await work.think()
    await move(edge, "reader", "versions/2/promote")
    await move(edge, "reader", "versions/1/retire")
    await edge.call(edge.keys.owner, "DELETE", "/v1/agents/reader", headers={"If-Match": "*"})
    work.restart()
    await work.answer_tool()
    await work.think()
    await work.think()
    assert len(model.requests) == 3
    for request in model.requests:
        assert [tool.name for tool in request.tools] == ["read_file", "submit"]
        assert "Report." in request.messages[0].text
        assert "verse" not in request.messages[0].text
    assert model.requests[2].messages[-1].is_error, "shell is no tool of this run"  # type: ignore[union-attr]
    seen = (await edge.call(edge.keys.owner, "GET", f"/v1/runs/{run_id}")).json()
    assert (seen["agent"], seen["agent_version"], seen["model"]) == ("reader", 1, "test/small")


async def test_the_agents_demand_makes_a_run_wait_on_real_workers(edge: Edge, owner: Database, tmp_path: Path) -> None:
    await define(edge, "careful", {"model": "test/small", "approvals": {"tools": ["shell"]}})
    await move(edge, "careful", "versions/1/promote")
    run_id = (await run(edge, "careful", approvals={"tools": ["search"]})).json()["id"]
    work = _Work(owner, run_id, ScriptedProvider([_calling("shell", command="ls")]), tmp_path)
    await work.begin(await ordered(owner, run_id))
    await work.think()
    seen = (await edge.call(edge.keys.owner, "GET", f"/v1/runs/{run_id}")).json()
    assert (seen["status"], [asked["tool"] for asked in seen["pending_approvals"]]) == ("input_required", ["shell"])


def _calling(name: str, **arguments: Any) -> AssistantMessage:
    return AssistantMessage(tool_calls=(ToolCall(id=f"c-{name}", name=name, arguments=json.dumps(arguments)),))


class _Work:
    """The workers of one run, whose messages go by hand."""

    def __init__(self, owner: Database, run_id: str, model: ScriptedProvider, folder: Path) -> None:
        self._bench = Bench(owner, run_id=run_id)
        self._model = model
        self._blobs = LocalArtifactStore(folder / "blobs")
        self.restart()

    def restart(self) -> None:
        """Workers that have nothing but the log."""
        self._agent = self._bench.agent()
        guarded = ResilientProvider(self._model, Breaker("test"))
        log = EventLog(self._bench.database)
        topic = "codeagent.provider.events.v1"
        performer = ProviderPerformer(log, self._blobs, lambda name: (guarded, name), unsent, answers_topic=topic)
        self._provider = self._bench.provider(performer)  # type: ignore[arg-type]  # it performs like any other

    async def begin(self, command: commands.SubmitRun) -> None:
        await self._deliver(self._bench.message(command))
        await self._deliver(self._bench.prepared())

    async def think(self) -> None:
        """One model call, and what the agent makes of it."""
        call, before = self._bench.mailbox.commands[-1], len(self._bench.mailbox.answers)
        assert call.data.NAME == "provider.generate"
        await self._provider.handle(call)
        async with asyncio.timeout(10):
            while len(self._bench.mailbox.answers) == before:
                await asyncio.sleep(0.005)
        await self._deliver(answered(self._bench.mailbox.answers[-1]))

    async def answer_tool(self) -> None:
        await self._deliver(self._bench.prepared())

    async def _deliver(self, message: Message) -> None:
        envelope = replace(message.envelope, tenant_id=MINE)
        await self._agent.handle(replace(message, envelope=envelope))
