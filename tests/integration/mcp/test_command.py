"""`codeagent mcp tools`: what a server offers, ready for the file of an agent's version."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from codeagent.cli.main import app
from codeagent.edge.agent_models import VersionBody
from tests.integration.mcp.host import Host, serving


async def run(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, ["mcp", "tools", *arguments])


async def test_it_prints_what_a_version_pins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with serving(Host()) as host:
        listed = host.settings().model_dump_json(exclude_none=True)
        monkeypatch.setenv("CODEAGENT_MCP_SERVERS", f"[{listed}]")
        monkeypatch.setenv("CODEAGENT_DATABASE_URL", "postgresql://h/d")
        monkeypatch.setenv("CODEAGENT_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
        place = ("--data-dir", str(tmp_path))
        told = await run("docs", "--tool", "note", *place)
        assert told.exit_code == 0, told.output
        [offer] = VersionBody.model_validate({"mcp": json.loads(told.stdout)}).content().mcp
        pin = await host.pin("note")
        assert (offer.digest, [tool.name for tool in offer.tools]) == (pin.digest, list(pin.tools))
        assert (await run("docs", "--tool", "missing", *place)).exit_code == 2
        unlisted = await run("other", *place)
        assert unlisted.exit_code == 1
        assert "lists no MCP server 'other'" in unlisted.output
