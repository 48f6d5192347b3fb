"""A canary over HTTP: begun, given to some runs and always the same ones, ended by people in every way there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from codeagent import clock
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import StoredEvent
from codeagent.messages.ids import agent_stream
from tests.integration.edge.defined_agents import define, move, post, refused, run, states
from tests.integration.edge.gateway import Edge
from tests.integration.edge.test_agents_cli import Command, command

__all__ = ["command"]
CURRENT = {"If-Match": "*"}


async def begin(edge: Edge, number: int, **body: Any) -> Any:
    path = f"/v1/agents/reader/versions/{number}/canary"
    return await edge.call(edge.keys.owner, "POST", path, json=body, headers=CURRENT)


async def with_active(edge: Edge, *versions: dict[str, Any]) -> dict[str, Any]:
    """`reader`, whose first version is active."""
    agent = await define(edge, "reader", *(versions or ({}, {}, {})))
    assert (await move(edge, "reader", "versions/1/promote")).status_code == 200
    return agent


async def facts(url: str, agent_id: str) -> Sequence[StoredEvent]:
    owner = Database(url, connections=1)
    try:
        return await EventLog(owner).read_stream(agent_stream(agent_id))
    finally:
        await owner.close()


async def test_a_canary_is_begun_shown_and_stopped_each_as_a_fact(edge: Edge, newest_database_url: str) -> None:
    agent = await with_active(edge)
    bounds = [{"metric": "success_rate", "relative": 0.1}, {"metric": "cost_usd_p50", "absolute": 2}]
    begun = await begin(edge, 2, weight=25, minimum_runs=30, bounds=bounds)
    assert begun.status_code == 200, begun.text
    assert (begun.json()["active_version"], begun.json()["canary"]["number"]) == (1, 2)
    assert await states(edge, "reader") == ["active", "canary", "draft"]
    seen = (await edge.call(edge.keys.owner, "GET", "/v1/agents/reader/canary")).json()
    assert (seen["number"], seen["active"], seen["weight"], seen["minimum_runs"]) == (2, 1, 25, 30)
    assert [held["bound"]["metric"] for held in seen["bounds"]] == ["success_rate", "cost_usd_p50"]
    assert {(held["chance"], held["canary"]["counted"], held["canary"]["value"]) for held in seen["bounds"]} == {
        (1.0, 0, None)
    }
    stopped = await move(edge, "reader", "canary/stop")
    assert (stopped.json()["canary"], stopped.json()["active_version"]) == (None, 1)
    assert await states(edge, "reader") == ["active", "deprecated", "draft"]
    assert refused(await edge.call(edge.keys.owner, "GET", "/v1/agents/reader/canary")) == (404, "not_found")
    assert refused(await move(edge, "reader", "canary/stop")) == (409, "invalid_state_transition")
    began, ended = (await facts(newest_database_url, agent["id"]))[-2:]
    assert (began.type, ended.type) == ("agent.canary_started", "agent.canary_stopped")
    assert began.document()["plan"]["bounds"] == [bounds[0], {"metric": "cost_usd_p50", "absolute": 2.0}]
    assert ended.document() == {"agent_id": agent["id"], "number": 2}


async def test_runs_of_a_session_of_a_project_and_of_a_principal_stay_with_their_version(edge: Edge) -> None:
    await with_active(edge)
    await begin(edge, 2, weight=50)
    began = (await edge.call(edge.keys.owner, "GET", "/v1/agents/reader")).json()["canary"]["began"]
    told: dict[str, set[tuple[int, str]]] = {}
    for by in ("session", "project", "principal"):
        for _ in range(6):
            unit: dict[str, str] = {}
            if by == "session":
                unit = {"session_id": (await post(edge, "/v1/sessions", {})).json()["id"]}
            elif by == "project":
                order = {"name": clock.new_uuid().hex, "repository": "https://git.example.org/a.git"}
                unit = {"project_id": (await post(edge, "/v1/projects", order)).json()["id"]}
            given = [(await run(edge, "reader", **unit)).json() for _ in range(1 if by == "session" else 2)]
            assert len({each["agent_version"] for each in given}) == 1, "the same each time"
            [shown] = {tuple(each["assignment"].items()) for each in given}
            rule = "canary" if given[0]["agent_version"] == 2 else "active"
            assert dict(shown) == {"rule": rule, "by": by, "canary": began, "deprecated": False}
            told.setdefault(by, set()).add((given[0]["agent_version"], rule))
    assert told["session"] | told["project"] == {(1, "active"), (2, "canary")}, "both get some"
    assert len(told["principal"]) == 1, "the owner's runs are one unit"


async def test_a_run_that_names_a_version_has_it_and_is_told_if_it_is_deprecated(edge: Edge) -> None:
    await with_active(edge)
    await begin(edge, 2, weight=50)
    runner = (await edge.make_key(edge.keys.owner, scopes=["runs:write", "runs:read"]))["key"]
    for number in (1, 2):
        answer = await run(edge, f"reader@{number}", key=runner)
        named = {"rule": "named", "by": None, "canary": None, "deprecated": False}
        assert (answer.json()["agent_version"], answer.json()["assignment"]) == (number, named)
    await move(edge, "reader", "canary/stop")
    answer = await run(edge, "reader@2", key=runner)
    assert answer.status_code == 202
    assert answer.json()["assignment"]["deprecated"] is True
    plain = await run(edge, "reader")
    assert plain.json()["assignment"] == {"rule": "active", "by": None, "canary": None, "deprecated": False}
    assert (await run(edge, "coder")).json()["assignment"] is None


@pytest.mark.parametrize(
    ("what", "after", "fact"),
    [
        ("versions/2/promote", ["deprecated", "active", "draft"], "agent.version_promoted"),
        ("versions/3/promote", ["deprecated", "deprecated", "active"], "agent.version_promoted"),
        ("rollback", ["active", "deprecated", "deprecated"], "agent.rolled_back"),
    ],
)
async def test_a_promotion_and_a_rollback_end_it_and_say_so(
    edge: Edge, newest_database_url: str, what: str, after: list[str], fact: str
) -> None:
    agent = await with_active(edge)
    if what == "rollback":
        await move(edge, "reader", "versions/3/promote")
    await begin(edge, 2)
    assert refused(await move(edge, "reader", "versions/2/retire")) == (409, "invalid_state_transition")
    moved = await move(edge, "reader", what)
    assert (moved.status_code, moved.json()["canary"]) == (200, None), moved.text
    assert await states(edge, "reader") == after
    last = (await facts(newest_database_url, agent["id"]))[-1]
    assert (last.type, last.document()["canary"]) == (fact, 2)


async def test_another_canary_takes_the_place_of_one_and_an_archived_agent_has_none(
    edge: Edge, newest_database_url: str
) -> None:
    agent = await with_active(edge)
    await begin(edge, 2)
    first = (await edge.call(edge.keys.owner, "GET", "/v1/agents/reader")).json()["canary"]
    again = (await begin(edge, 2, weight=20)).json()["canary"]
    assert (again["number"], again["plan"]["weight"]) == (2, 20)
    assert again["began"] > first["began"], "it is held to what its own runs come to"
    assert (await begin(edge, 3)).json()["canary"]["number"] == 3
    assert await states(edge, "reader") == ["active", "deprecated", "canary"]
    await edge.call(edge.keys.owner, "DELETE", "/v1/agents/reader", headers=CURRENT)
    assert await states(edge, "reader") == ["active", "deprecated", "deprecated"]
    *_, taken, archived = await facts(newest_database_url, agent["id"])
    assert (taken.type, taken.document()["canary"]) == ("agent.canary_started", 2)
    assert (archived.type, archived.document()["canary"]) == ("agent.archived", 3)


async def test_what_can_be_no_canary_is_refused(edge: Edge) -> None:
    await define(edge, "reader", {}, {}, {})
    unfit = (409, "invalid_state_transition")
    assert refused(await begin(edge, 2)) == unfit, "there is nothing to hold it against"
    await move(edge, "reader", "versions/1/promote")
    await move(edge, "reader", "versions/3/retire")
    assert refused(await begin(edge, 1)) == unfit, "it is active"
    assert refused(await begin(edge, 3)) == unfit, "it is retired"
    assert refused(await begin(edge, 4)) == (404, "not_found")
    invalid = (422, "validation_failed")
    for body in ({"weight": 0}, {"weight": 51}, {"weight": True}, {"minimum_runs": 4}, {"bounds": []}, {"share": 10}):
        assert refused(await begin(edge, 2, **body)) == invalid, body
    rate = {"metric": "success_rate"}
    for bound in ({"metric": "beauty", "relative": 1}, {**rate, "relative": "0.1"}, {**rate, "relative": -1}):
        assert refused(await begin(edge, 2, bounds=[bound])) == invalid, bound
    answer = await begin(edge, 2, bounds=[{**rate, "relative": 0.1}, {**rate, "relative": 0.1, "absolute": 0.5}])
    assert refused(answer) == (422, "unsupported_bound")
    assert answer.json()["errors"][0]["pointer"] == "/bounds/1"
    path = "/v1/agents/reader/versions/2/canary"
    assert refused(await edge.call(edge.keys.owner, "POST", path, json={})) == (428, "precondition_required")
    stale = await edge.call(edge.keys.owner, "POST", path, json={}, headers={"If-Match": '"1"'})
    assert refused(stale) == (412, "version_mismatch")
    assert await states(edge, "reader") == ["active", "draft", "retired"]
    reader = (await edge.make_key(edge.keys.owner, scopes=["agents:read"]))["key"]
    answer = await edge.call(reader, "POST", path, json={}, headers=CURRENT)
    assert refused(answer) == (403, "insufficient_scope")


async def test_a_canary_on_the_terminal(edge: Edge, command: Command, tmp_path: Any) -> None:
    await with_active(edge)
    plan = tmp_path / "plan.yaml"
    plan.write_text("weight: 5\nbounds: [{metric: duration_seconds_p95, absolute: 900}]\n")
    assert (await command("canary", "reader", 2, "--plan", plan)).stdout == "reader@2\tcanary\t5 %\n"
    assert (await command("canary", "reader", 2, "--weight", 30)).stdout == "reader@2\tcanary\t30 %\n"
    assert "metric: duration_seconds_p95" in (await command("show", "reader")).stdout
    assert (await command("stop", "reader")).stdout == "reader@1\tactive\n"
    plan.write_text("- weight")
    assert (await command("canary", "reader", 2, "--plan", plan)).exit_code == 2
