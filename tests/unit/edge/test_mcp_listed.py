"""Whose MCP servers are whose: what a tenant's versions may pin."""

from __future__ import annotations

import pytest

from codeagent.agent_registry.mcp_tools import check_listed, pinned
from codeagent.cli.edge_policy import edge_policy
from codeagent.errors import InvalidInput
from codeagent.messages.mcp import McpTool
from tests.unit.settings.test_policy import configured

OPEN = {"name": "docs", "url": "https://docs.example.com/mcp", "read_only": ["search"]}
OWN = {"name": "tickets", "url": "http://tickets.internal/mcp", "private": True, "tenants": ["ten_a"]}
TOOL = McpTool(name="search", description="", input_schema={"type": "object"})


def test_a_server_with_tenants_is_theirs_and_the_others_hear_nothing_of_it() -> None:
    policy = edge_policy(configured(mcp_servers=[OPEN, OWN]), ())
    offers = (pinned("docs", [TOOL]), pinned("tickets", [TOOL]))
    check_listed(offers, policy.mcp_servers_of("ten_a"))
    check_listed(offers[:1], policy.mcp_servers_of("ten_b"))
    with pytest.raises(InvalidInput) as refused:
        check_listed(offers, policy.mcp_servers_of("ten_b"))
    assert refused.value.code == "unsupported_mcp_server"
    assert refused.value.detail == "There is no MCP server 'tickets': there are docs."
