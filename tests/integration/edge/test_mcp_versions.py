"""Versions of agents with tools of MCP servers: what may be pinned, and what a run is given of it."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
import rfc8785

from codeagent.eventlog.database import Database
from codeagent.messages import commands
from tests.integration.edge.defined_agents import define, post, refused, run
from tests.integration.edge.gateway import Edge
from tests.integration.opened import ordered

SCHEMA = {"type": "object", "properties": {"größe": {"type": "number", "minimum": 0.5}}}
SEARCH = {"name": "search", "description": "Search the docs: “ ”.", "input_schema": SCHEMA}
FILE = {"name": "file", "description": "", "input_schema": {"type": "object"}}
DOCS = {"server": "docs", "tools": [SEARCH, FILE]}


async def submitted(edge: Edge, database_url: str, **body: Any) -> commands.SubmitRun:
    answer = await run(edge, "helped@1", **body)
    assert answer.status_code == 202, answer.text
    owner = Database(database_url, connections=1)
    command = await ordered(owner, answer.json()["id"])
    await owner.close()
    return command


async def test_a_version_shows_its_tools_with_the_digest_of_all_that_models_are_told(edge: Edge) -> None:
    await define(edge, "helped", {"mcp": [DOCS]})
    version = (await edge.call(edge.keys.owner, "GET", "/v1/agents/helped/versions/1")).json()
    digest = f"sha256:{sha256(rfc8785.dumps([FILE, SEARCH])).hexdigest()}"
    assert version["mcp"] == [{"server": "docs", "digest": digest, "tools": [FILE, SEARCH]}]
    said = {name: version[name] for name in ("instructions", "model", "tools", "limits", "approvals")}
    said["mcp"] = {"docs": digest}
    assert version["digest"] == f"sha256:{sha256(rfc8785.dumps(said)).hexdigest()}"


async def test_a_run_is_given_them_with_what_the_operator_says_of_each(edge: Edge, newest_database_url: str) -> None:
    await define(edge, "helped", {"mcp": [DOCS]})
    command = await submitted(edge, newest_database_url)
    assert command.definition is not None
    assert command.definition.mcp is not None
    [offer] = command.definition.mcp
    assert [(tool.name, tool.read_only) for tool in offer.tools] == [("file", False), ("search", True)]


async def test_a_run_may_ask_about_them_by_name_and_loses_none_that_its_agent_asks_about(
    edge: Edge, newest_database_url: str
) -> None:
    await define(edge, "helped", {"mcp": [DOCS], "approvals": {"tools": "all_changing"}})
    asking = {"approvals": {"tools": ["mcp__docs__search"]}}
    command = await submitted(edge, newest_database_url, **asking)
    assert command.approvals is not None
    assert command.approvals.tools == ("shell", "write_file", "edit_file", "mcp__docs__file", "mcp__docs__search")
    misspelt = await run(edge, "helped@1", approvals={"tools": ["mcp__docs__serch"]})
    assert refused(misspelt) == (422, "unsupported_tool")
    assert refused(await run(edge, "coder", **asking)) == (422, "unsupported_tool")


@pytest.mark.parametrize(
    ("mcp", "code", "pointer"),
    [
        ([{"server": "other", "tools": [SEARCH]}], "unsupported_mcp_server", "/mcp/0/server"),
        ([{"server": "theirs", "tools": [SEARCH]}], "unsupported_mcp_server", "/mcp/0/server"),
        ([DOCS, DOCS], "unsupported_mcp_tool", "/mcp"),
        ([{"server": "docs", "tools": [SEARCH, SEARCH]}], "unsupported_mcp_tool", "/mcp"),
        ([{"server": "docs", "tools": [{**SEARCH, "name": "x" * 60}]}], "unsupported_mcp_tool", "/mcp"),
        ([{"server": "docs", "tools": [{**SEARCH, "name": "a.b"}]}], "validation_failed", "/mcp/0/tools/0/name"),
        (
            [{"server": "docs", "tools": [{**SEARCH, "input_schema": {"type": "array"}}]}],
            "validation_failed",
            "/mcp/0/tools/0/input_schema",
        ),
        (
            [{"server": "docs", "tools": [{**SEARCH, "input_schema": {"type": "object", "x": "y" * 20_000}}]}],
            "validation_failed",
            "/mcp/0/tools/0/input_schema",
        ),
        (
            [{"server": "docs", "tools": [{**FILE, "name": f"t{n}", "description": "x" * 7_000} for n in range(8)]}],
            "unsupported_mcp_tool",
            "/mcp",
        ),
        (
            [{"server": "docs", "tools": [{**FILE, "name": f"t{n}", "description": "语" * 7_000} for n in range(3)]}],
            "unsupported_mcp_tool",
            "/mcp",
        ),
    ],
)
async def test_what_cannot_be_pinned_is_refused(edge: Edge, mcp: list[Any], code: str, pointer: str) -> None:
    await define(edge, "helped")
    answer = await post(edge, "/v1/agents/helped/versions", {"mcp": mcp})
    assert refused(answer) == (422, code)
    assert answer.json()["errors"][0]["pointer"] == pointer
