"""Versions of agents whose runs may have replies again: what may be said of it, and what a run is given."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
import rfc8785

from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.messages.agent_events import AgentVersionCreated
from codeagent.messages.ids import agent_stream
from codeagent.messages.values import CachePolicy
from tests.integration.edge.defined_agents import define, post, refused, run
from tests.integration.edge.gateway import Edge
from tests.integration.opened import ordered

SAID = ("instructions", "model", "tools", "limits", "approvals")


async def test_a_version_shows_how_old_a_reply_may_be_and_its_runs_carry_it(
    edge: Edge, newest_database_url: str
) -> None:
    agent = await define(edge, "thrifty", {"cache": {"ttl_seconds": 3_600}}, {})
    version, plain = [
        (await edge.call(edge.keys.owner, "GET", f"/v1/agents/thrifty/versions/{number}")).json() for number in (1, 2)
    ]
    assert (version["cache"], plain["cache"]) == ({"ttl_seconds": 3_600}, None)
    said = {**{name: version[name] for name in SAID}, "cache": {"ttl_seconds": 3_600}}
    assert version["digest"] == f"sha256:{sha256(rfc8785.dumps(said)).hexdigest()}"
    assert plain["digest"] == f"sha256:{sha256(rfc8785.dumps({name: plain[name] for name in SAID})).hexdigest()}"
    owner = Database(newest_database_url, connections=1)
    policies = []
    for number in (1, 2):
        answer = await run(edge, f"thrifty@{number}")
        command = await ordered(owner, answer.json()["id"])
        assert command.definition is not None
        policies.append(command.definition.cache)
    facts = [stored.decode() for stored in await EventLog(owner).read_stream(agent_stream(agent["id"]))]
    await owner.close()
    assert policies == [CachePolicy(ttl_seconds=3_600), None]
    assert [fact.cache for fact in facts if isinstance(fact, AgentVersionCreated)] == policies


@pytest.mark.parametrize("seconds", [60, 2_592_000])
async def test_from_a_minute_to_thirty_days(edge: Edge, seconds: int) -> None:
    await define(edge, "thrifty", {"cache": {"ttl_seconds": seconds}})


@pytest.mark.parametrize(
    ("cache", "pointer"),
    [
        ({"ttl_seconds": 59}, "/cache/ttl_seconds"),
        ({"ttl_seconds": 2_592_001}, "/cache/ttl_seconds"),
        ({"ttl_seconds": True}, "/cache/ttl_seconds"),
        ({"ttl_seconds": 3_600, "scope": "all"}, "/cache/scope"),
        ({}, "/cache/ttl_seconds"),
        (True, "/cache"),
    ],
)
async def test_anything_else_is_refused(edge: Edge, cache: Any, pointer: str) -> None:
    await define(edge, "thrifty")
    answer = await post(edge, "/v1/agents/thrifty/versions", {"cache": cache})
    assert refused(answer) == (422, "validation_failed")
    assert answer.json()["errors"][0]["pointer"] == pointer
