"""Agents over HTTP: defined as data, in versions that never change, one of them active."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import Any

import pytest
import rfc8785

from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import leaf_of
from codeagent.messages.ids import agent_stream
from tests.integration.edge.defined_agents import define, move, post, refused, states
from tests.integration.edge.gateway import Edge

READER = {
    "instructions": "Change nothing. Report what you find: “ ” é.",
    "model": "builtin/repair",
    "tools": ["search", "read_file"],
    "limits": {"max_steps": 20, "max_cost_usd": "0.50"},
    "approvals": {"tools": ["write_file", "shell"]},
}


async def test_a_version_is_a_draft_with_the_digest_of_what_it_says(edge: Edge) -> None:
    made = await post(edge, "/v1/agents", {"name": "reader", "description": "Reads."})
    assert (made.status_code, made.headers["etag"]) == (201, '"1"')
    agent = made.json()
    assert made.headers["location"] == f"/v1/agents/{agent['id']}"
    answer = await post(edge, f"/v1/agents/{agent['id']}/versions", READER)
    assert answer.status_code == 201
    version = answer.json()
    assert (version["number"], version["state"], version["agent"]) == (1, "draft", "reader")
    assert version["tools"] == ["read_file", "search", "submit"]
    said = {name: version[name] for name in ("instructions", "model", "tools", "limits", "approvals")}
    assert said["approvals"] == {"tools": ["shell", "write_file"], "expires_seconds": 86_400}
    assert version["digest"] == f"sha256:{sha256(rfc8785.dumps(said)).hexdigest()}"
    seen = await edge.call(edge.keys.owner, "GET", answer.headers["location"])
    assert seen.json() == version
    by_name = await edge.call(edge.keys.owner, "GET", "/v1/agents/reader")
    assert (by_name.json()["id"], by_name.json()["latest_version"], by_name.headers["etag"]) == (agent["id"], 1, '"2"')
    again = await edge.call(edge.keys.owner, "GET", "/v1/agents/reader", headers={"If-None-Match": '"2"'})
    assert again.status_code == 304


async def test_every_change_is_a_fact_of_the_agents_own_stream(edge: Edge, newest_database_url: str) -> None:
    agent = await define(edge, "reader", READER, {})
    for what in ("versions/1/promote", "versions/2/promote", "rollback", "versions/2/retire"):
        assert (await move(edge, "reader", what)).status_code == 200, what
    path, current = "/v1/agents/reader", {"If-Match": '"7"'}
    described = await edge.call(edge.keys.owner, "PATCH", path, json={"description": "new"}, headers=current)
    assert (described.json()["description"], described.headers["etag"]) == ("new", '"8"')
    assert (await edge.call(edge.keys.owner, "DELETE", path, headers={"If-Match": '"8"'})).status_code == 204
    owner = Database(newest_database_url, connections=1)
    events = await EventLog(owner).read_stream(agent_stream(agent["id"]))
    await owner.close()
    assert [event.type for event in events] == [
        "agent.created",
        "agent.version_created",
        "agent.version_created",
        "agent.version_promoted",
        "agent.version_promoted",
        "agent.rolled_back",
        "agent.version_retired",
        "agent.updated",
        "agent.archived",
    ]
    assert all(event.leaf_hash == leaf_of(event) for event in events)
    assert events[1].document()["instructions"] == READER["instructions"]
    assert events[1].document()["approvals"]["tools"] == ["shell", "write_file"]
    assert "approvals" not in events[2].document()
    assert [events[place].document()["former"] for place in (3, 4, 5)] == [None, 1, 2]
    assert {event.envelope().actor_id for event in events} == {"usr_owner"}


async def test_a_version_names_hosts_that_the_operator_lists_for_its_commands(
    edge: Edge, newest_database_url: str
) -> None:
    agent = await define(edge, "builder", {"egress": ["PyPI.org", "*.a.example.org:443", "pypi.org:443"]})
    hosts = ["*.a.example.org:443", "pypi.org:443"]
    version = (await edge.call(edge.keys.owner, "GET", "/v1/agents/builder/versions/1")).json()
    assert version["egress"] == hosts
    owner = Database(newest_database_url, connections=1)
    events = await EventLog(owner).read_stream(agent_stream(agent["id"]))
    await owner.close()
    assert events[1].document()["egress"] == hosts
    silent = (await post(edge, "/v1/agents/builder/versions", {})).json()
    assert silent["egress"] == []
    said = {name: silent[name] for name in ("instructions", "model", "tools", "limits", "approvals")}
    assert silent["digest"] == f"sha256:{sha256(rfc8785.dumps(said)).hexdigest()}"
    said = {name: version[name] for name in (*said, "egress")}
    assert version["digest"] == f"sha256:{sha256(rfc8785.dumps(said)).hexdigest()}"


@pytest.mark.parametrize(
    ("hosts", "code"),
    [
        (["pypi.org", "127.0.0.1"], "unsupported_host"),
        (["localhost"], "unsupported_host"),
        (["metadata.google.internal"], "unsupported_host"),
        (["pypi.org", "files.pypi.org"], "egress_refused"),
        (["pypi.org:8443"], "egress_refused"),
        (["example.org"], "egress_refused"),
        (["*.pypi.org"], "egress_refused"),
    ],
)
async def test_a_version_that_asks_for_more_is_refused(edge: Edge, hosts: list[str], code: str) -> None:
    await define(edge, "builder")
    answer = await post(edge, "/v1/agents/builder/versions", {"egress": hosts})
    assert refused(answer) == (422, code)
    [problem] = answer.json()["errors"]
    assert problem["pointer"] == ("/egress" if code == "egress_refused" else f"/egress/{len(hosts) - 1}")
    assert (await edge.call(edge.keys.owner, "GET", "/v1/agents/builder")).json()["latest_version"] == 0


async def test_the_list_of_hosts_is_bounded(edge: Edge) -> None:
    await define(edge, "builder")
    for hosts in ([f"h{number}.example.org" for number in range(51)], ["a" * 261]):
        answer = await post(edge, "/v1/agents/builder/versions", {"egress": hosts})
        assert refused(answer) == (422, "validation_failed")


async def test_built_in_agents_are_listed_and_cannot_be_changed_or_shadowed(edge: Edge) -> None:
    coder = (await edge.call(edge.keys.owner, "GET", "/v1/agents/coder")).json()
    assert (coder["name"], coder["builtin"], coder["active_version"]) == ("coder", True, 1)
    by_id = await edge.call(edge.keys.stranger, "GET", f"/v1/agents/{coder['id']}")
    assert by_id.json() == coder
    [version] = (await edge.call(edge.keys.owner, "GET", "/v1/agents/coder/versions")).json()["items"]
    assert (version["number"], version["state"], version["instructions"]) == (1, "active", "")
    assert (await edge.call(edge.keys.owner, "GET", "/v1/agents/coder/versions/1")).json() == version
    assert refused(await edge.call(edge.keys.owner, "GET", "/v1/agents/coder/versions/2")) == (404, "not_found")
    assert refused(await post(edge, "/v1/agents", {"name": "coder"})) == (409, "conflict")
    locked = (409, "invalid_state_transition")
    assert refused(await post(edge, "/v1/agents/coder/versions", {})) == locked
    for what in ("versions/1/promote", "versions/1/retire", "rollback"):
        assert refused(await move(edge, "coder", what)) == locked
    headers = {"If-Match": '"1"'}
    changed = await edge.call(edge.keys.owner, "PATCH", "/v1/agents/coder", json={"description": "x"}, headers=headers)
    assert refused(changed) == locked
    assert refused(await edge.call(edge.keys.owner, "DELETE", "/v1/agents/coder", headers=headers)) == locked


async def test_a_name_means_one_agent_of_a_tenant_for_ever(edge: Edge) -> None:
    await define(edge, "reader")
    assert refused(await post(edge, "/v1/agents", {"name": "reader"})) == (409, "conflict")
    await edge.call(edge.keys.owner, "DELETE", "/v1/agents/reader", headers={"If-Match": "*"})
    assert refused(await post(edge, "/v1/agents", {"name": "reader"})) == (409, "conflict")
    assert (await post(edge, "/v1/agents", {"name": "reader"}, key=edge.keys.stranger)).status_code == 201


async def test_an_archived_agent_can_be_looked_at_and_nothing_else(edge: Edge) -> None:
    await define(edge, "reader", {}, {})
    await move(edge, "reader", "versions/1/promote")
    for _ in range(2):
        gone = await edge.call(edge.keys.owner, "DELETE", "/v1/agents/reader", headers={"If-Match": "*"})
        assert gone.status_code == 204
    seen = (await edge.call(edge.keys.owner, "GET", "/v1/agents/reader")).json()
    assert seen["archived_at"] is not None
    assert await states(edge, "reader") == ["active", "draft"]
    assert refused(await post(edge, "/v1/agents/reader/versions", {})) == (409, "invalid_state_transition")
    for what in ("versions/2/promote", "versions/2/retire", "rollback"):
        assert refused(await move(edge, "reader", what)) == (409, "invalid_state_transition"), what


async def test_a_repeat_makes_nothing_and_versions_made_at_once_have_numbers_of_their_own(edge: Edge) -> None:
    body = {"name": "reader", "description": "Reads."}
    first, repeat = await post(edge, "/v1/agents", body, "k"), await post(edge, "/v1/agents", body, "k")
    assert (first.status_code, repeat.status_code) == (201, 200)
    assert repeat.json() == first.json()
    assert repeat.headers["idempotent-replayed"] == "true"
    other = await post(edge, "/v1/agents", {"name": "other"}, "k")
    assert refused(other) == (422, "idempotency_key_reused")
    path = "/v1/agents/reader/versions"
    at_once = await asyncio.gather(*(post(edge, path, READER, f"k{n // 2}") for n in range(8)))
    assert sorted(answer.status_code for answer in at_once) == [200] * 4 + [201] * 4
    assert {answer.json()["number"] for answer in at_once} == {1, 2, 3, 4}
    assert refused(await post(edge, path, {}, "k0")) == (422, "idempotency_key_reused")
    unnamed = await edge.call(edge.keys.owner, "POST", path, json=READER)
    assert refused(unnamed) == (400, "idempotency_key_missing")


async def test_a_repeat_is_one_although_the_agent_is_archived_by_now(edge: Edge) -> None:
    await define(edge, "reviewer")
    first = await post(edge, "/v1/agents/reviewer/versions", {}, repeat="v")
    await edge.call(edge.keys.owner, "DELETE", "/v1/agents/reviewer", headers={"If-Match": "*"})
    again = await post(edge, "/v1/agents/reviewer/versions", {}, repeat="v")
    assert (again.status_code, again.json()) == (200, first.json())
    assert refused(await post(edge, "/v1/agents/reviewer/versions", {})) == (409, "invalid_state_transition")


async def test_what_moves_an_agent_names_the_version_it_was_decided_on(edge: Edge) -> None:
    await define(edge, "reader", {}, {})
    changes: list[tuple[str, str, Any]] = [
        ("POST", "/versions/1/promote", None),
        ("POST", "/versions/2/retire", None),
        ("POST", "/rollback", None),
        ("PATCH", "", {"description": "x"}),
        ("DELETE", "", None),
    ]
    for method, what, body in changes:
        path = f"/v1/agents/reader{what}"
        bare = await edge.call(edge.keys.owner, method, path, json=body)
        assert refused(bare) == (428, "precondition_required"), path
        stale = await edge.call(edge.keys.owner, method, path, json=body, headers={"If-Match": '"2"'})
        assert refused(stale) == (412, "version_mismatch"), path
    both = await asyncio.gather(
        *(
            edge.call(edge.keys.owner, "POST", f"/v1/agents/reader/versions/{n}/promote", headers={"If-Match": '"3"'})
            for n in (1, 2)
        )
    )
    assert sorted(answer.status_code for answer in both) == [200, 412]


async def test_one_version_is_active_and_a_retired_one_never_again(edge: Edge) -> None:
    await define(edge, "reader", {}, {}, {})
    never = (409, "invalid_state_transition")
    assert refused(await move(edge, "reader", "rollback")) == never
    assert refused(await move(edge, "reader", "versions/4/promote")) == (404, "not_found")
    assert refused(await move(edge, "reader", "versions/4/retire")) == (404, "not_found")
    promoted = await move(edge, "reader", "versions/1/promote")
    assert promoted.json()["active_version"] == 1
    again = await move(edge, "reader", "versions/1/promote")
    assert (again.status_code, again.headers["etag"]) == (200, promoted.headers["etag"])
    assert refused(await move(edge, "reader", "rollback")) == never
    assert refused(await move(edge, "reader", "versions/1/retire")) == never
    await move(edge, "reader", "versions/3/promote")
    assert await states(edge, "reader") == ["deprecated", "draft", "active"]
    back = (await move(edge, "reader", "rollback")).json()
    assert (back["active_version"], back["former_version"]) == (1, None)
    assert await states(edge, "reader") == ["active", "draft", "deprecated"]
    assert refused(await move(edge, "reader", "rollback")) == never
    await move(edge, "reader", "versions/3/promote")
    for _ in range(2):
        assert (await move(edge, "reader", "versions/1/retire")).json()["former_version"] is None
    assert await states(edge, "reader") == ["retired", "draft", "active"]
    assert refused(await move(edge, "reader", "rollback")) == never
    assert refused(await move(edge, "reader", "versions/1/promote")) == never


async def test_what_cannot_be_an_agent_or_a_version_is_refused_by_the_field(edge: Edge) -> None:
    for name in ("", "Reader", "a_b", "-a", "a-", "a" * 64, "a\n", "ä"):
        assert refused(await post(edge, "/v1/agents", {"name": name})) == (422, "validation_failed"), name
    await define(edge, "reader")
    wrong: list[tuple[dict[str, Any], str, str]] = [
        ({"tools": ["read_file", "rm"]}, "unsupported_tool", "/tools/1"),
        ({"model": "unknown/model"}, "unsupported_model", "/model"),
        ({"instructions": "a\x00b"}, "validation_failed", "/instructions"),
        ({"instructions": "a" * 16_001}, "validation_failed", "/instructions"),
        ({"limits": {"max_steps": 0}}, "validation_failed", "/limits/max_steps"),
        ({"limits": {"max_stepz": 1}}, "validation_failed", "/limits/max_stepz"),
        ({"approvals": {"tools": ["shell", "rm"]}}, "unsupported_tool", "/approvals/tools/1"),
        ({"prompt": "x"}, "validation_failed", "/prompt"),
    ]
    for body, code, pointer in wrong:
        answer = await post(edge, "/v1/agents/reader/versions", body)
        assert refused(answer) == (422, code), body
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    for number in ("0", "x", str(2**31)):
        answer = await edge.call(edge.keys.owner, "GET", f"/v1/agents/reader/versions/{number}")
        assert refused(answer) == (422, "validation_failed"), number
    for agent in ("no-such", "agt_x", "%00", "READER"):
        assert refused(await edge.call(edge.keys.owner, "GET", f"/v1/agents/{agent}")) == (404, "not_found")


async def test_lists_come_in_pages_by_name_with_the_built_in_agents_among_them(edge: Edge) -> None:
    for name in ("writer", "auditor", "reader"):
        await define(edge, name)
    await edge.call(edge.keys.owner, "DELETE", "/v1/agents/writer", headers={"If-Match": "*"})
    for query, expected in (
        ("", ["auditor", "coder", "reader"]),
        ("&archived=true", ["auditor", "coder", "reader", "writer"]),
    ):
        names: list[str] = []
        path: str | None = f"/v1/agents?limit=1{query}"
        while path is not None:
            answer = await edge.call(edge.keys.owner, "GET", path)
            names += [agent["name"] for agent in answer.json()["items"]]
            following = answer.links.get("next")
            assert (following is None) == (answer.json()["next_cursor"] is None)
            path = None if following is None else following["url"]
        assert names == expected
    for _ in range(3):
        await post(edge, "/v1/agents/reader/versions", {})
    first = (await edge.call(edge.keys.owner, "GET", "/v1/agents/reader/versions?limit=2")).json()
    assert [version["number"] for version in first["items"]] == [3, 2]
    rest = await edge.call(edge.keys.owner, "GET", f"/v1/agents/reader/versions?cursor={first['next_cursor']}")
    assert [version["number"] for version in rest.json()["items"]] == [1]
    for path in ("/v1/agents?cursor=A%00", "/v1/agents/reader/versions?cursor=-1"):
        assert refused(await edge.call(edge.keys.owner, "GET", path)) == (400, "malformed_cursor")


async def test_agents_are_read_and_written_under_scopes_of_their_own(edge: Edge) -> None:
    reader = (await edge.make_key(edge.keys.owner, scopes=["agents:read"]))["key"]
    other = (await edge.make_key(edge.keys.owner, scopes=["runs:write", "runs:read"]))["key"]
    for path in ("/v1/agents", "/v1/agents/coder", "/v1/agents/coder/versions"):
        assert (await edge.call(reader, "GET", path)).status_code == 200
        assert refused(await edge.call(other, "GET", path)) == (403, "insufficient_scope")
    assert refused(await post(edge, "/v1/agents", {"name": "mine"}, key=reader)) == (403, "insufficient_scope")
