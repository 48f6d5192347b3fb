"""Agents that hand work to others: whom a version may name, and what a run is given of them."""

from __future__ import annotations

from typing import Any

import pytest

from codeagent.eventlog.database import Database
from codeagent.messages.values import Delegate
from tests.integration.edge.defined_agents import define, move, post, refused, run
from tests.integration.edge.gateway import Edge
from tests.integration.opened import ordered


async def delegates(edge: Edge, database_url: str, agent: str, **body: Any) -> tuple[Delegate, ...]:
    """Of the command that a request for a run has become."""
    answer = await run(edge, agent, **body)
    assert answer.status_code == 202, answer.text
    owner = Database(database_url, connections=1)
    command = await ordered(owner, answer.json()["id"])
    await owner.close()
    assert command.definition is not None
    return command.definition.delegates or ()


async def test_a_run_is_given_each_as_it_is_when_the_run_is_submitted(edge: Edge, newest_database_url: str) -> None:
    limits = {"max_steps": 7, "max_cost_usd": "0.50"}
    await define(edge, "tester", {"instructions": "One."}, {"instructions": "Two.", "limits": limits})
    await move(edge, "tester", "versions/1/promote")
    await define(edge, "writer", {"tools": ["read_file"]})
    await define(edge, "lead", {"delegates": ["tester", "writer@1", "coder"]})
    version = (await edge.call(edge.keys.owner, "GET", "/v1/agents/lead/versions/1")).json()
    assert version["delegates"] == ["tester", "writer@1", "coder"]
    assert [(one.name, one.version) for one in await delegates(edge, newest_database_url, "lead@1")] == [
        ("tester", 1),
        ("writer", 1),
        ("coder", 1),
    ]
    await move(edge, "tester", "versions/2/promote")
    tester, writer, coder = await delegates(edge, newest_database_url, "lead@1")
    assert tester.definition is not None
    assert (tester.version, tester.definition.instructions, tester.limits.max_steps) == (2, "Two.", 7)
    assert writer.definition is not None
    assert writer.definition.tools == ("read_file", "submit")
    assert coder.definition is None
    assert coder.description
    assert {one.model for one in (tester, writer, coder)} == {"builtin/repair"}


async def test_an_agent_that_names_nobody_says_so_by_saying_nothing(edge: Edge, newest_database_url: str) -> None:
    await define(edge, "alone", {"instructions": "x"})
    assert await delegates(edge, newest_database_url, "alone@1") == ()
    digest = (await edge.call(edge.keys.owner, "GET", "/v1/agents/alone/versions/1")).json()["digest"]
    await define(edge, "tester", {})
    await post(edge, "/v1/agents/alone/versions", {"instructions": "x", "delegates": ["tester@1"]})
    changed = (await edge.call(edge.keys.owner, "GET", "/v1/agents/alone/versions/2")).json()["digest"]
    assert digest != changed


async def test_children_ask_about_what_the_run_asks_about_and_what_their_own_version_demands(
    edge: Edge, newest_database_url: str
) -> None:
    await define(edge, "below", {})
    await define(edge, "tester", {"delegates": ["below@1"], "approvals": {"tools": ["shell"]}})
    await define(edge, "lead", {"delegates": ["tester@1"], "approvals": {"tools": ["write_file"]}})
    asking = {"approvals": {"tools": ["read_file"], "expires_seconds": 60}}
    [tester] = await delegates(edge, newest_database_url, "lead@1", **asking)
    assert tester.approvals is not None
    assert (tester.approvals.tools, tester.approvals.expires_seconds) == (("shell", "read_file", "write_file"), 60)
    assert tester.definition is not None
    [below] = tester.definition.delegates or ()
    assert below.approvals == tester.approvals


async def test_nobody_works_for_themselves_nor_too_far_from_the_run(edge: Edge) -> None:
    for name, below in (("d", []), ("c", ["d@1"]), ("b", ["c@1"])):
        await define(edge, name, {"delegates": below})
    await post(edge, "/v1/agents", {"name": "a"})
    answer = await post(edge, "/v1/agents/a/versions", {"delegates": ["b@1"]})
    assert refused(answer) == (422, "delegation_too_deep")
    for name in ("c@1", "d@1"):
        circle = await post(edge, "/v1/agents/d/versions", {"delegates": [name]})
        assert refused(circle) == (422, "delegation_cycle")
        assert circle.json()["errors"][0]["pointer"] == "/delegates"


async def test_what_the_agents_below_have_become_meanwhile_is_told_when_a_run_is_submitted(edge: Edge) -> None:
    await define(edge, "writer", {})
    await define(edge, "tester", {}, {"delegates": ["writer@1"]})
    await move(edge, "tester", "versions/1/promote")
    await define(edge, "helper", {}, {"delegates": ["tester"]})
    await move(edge, "helper", "versions/1/promote")
    await define(edge, "lead", {"delegates": ["helper"]})
    assert (await run(edge, "lead@1")).status_code == 202
    await move(edge, "helper", "versions/2/promote")
    await move(edge, "tester", "versions/2/promote")
    assert refused(await run(edge, "lead@1")) == (422, "delegation_too_deep")
    await edge.call(edge.keys.owner, "DELETE", "/v1/agents/helper", headers={"If-Match": "*"})
    assert refused(await run(edge, "lead@1")) == (422, "unsupported_agent")


@pytest.mark.parametrize(
    ("named", "code"),
    [
        (["tester", "tester@1"], "unsupported_delegate"),
        (["nobody"], "unsupported_agent"),
        (["tester@2"], "unsupported_agent"),
        (["Tester"], "validation_failed"),
        ([f"t{number}" for number in range(9)], "validation_failed"),
    ],
)
async def test_a_version_names_agents_that_there_are_each_once(edge: Edge, named: list[str], code: str) -> None:
    await define(edge, "tester", {})
    await post(edge, "/v1/agents", {"name": "lead"})
    assert refused(await post(edge, "/v1/agents/lead/versions", {"delegates": named})) == (422, code)


async def test_what_travels_with_a_run_has_a_bound(edge: Edge) -> None:
    names = [f"wordy{number}" for number in range(6)]
    for name in names:
        await define(edge, name, {"instructions": "语" * 16_000})
    await define(edge, "lead", {"delegates": [f"{name}@1" for name in names[:5]]})
    answer = await post(edge, "/v1/agents/lead/versions", {"delegates": [f"{name}@1" for name in names]})
    assert refused(answer) == (422, "delegation_too_large")
