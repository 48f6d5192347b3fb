"""Agents from files, by the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from codeagent.cli.agents import app
from tests.integration.edge.gateway import Edge

Command = Callable[..., Awaitable[Result]]


@pytest.fixture
def command(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("CODEAGENT_URL", str(edge.http.base_url))
    monkeypatch.setenv("CODEAGENT_API_KEY", edge.keys.owner)

    async def invoke(*words: object) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, [str(word) for word in words])

    return invoke


async def test_an_agent_from_a_file_is_versioned_promoted_and_rolled_back(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "reader.yaml"
    file.write_text(
        "name: reader\ndescription: Reads.\ninstructions: |\n  Change nothing.\ntools: [read_file]\n"
        "approvals: {tools: [read_file], expires_seconds: 77}\negress: ['*.a.example.org']\n"
    )
    made = await command("create", file)
    assert made.exit_code == 0, made.output
    assert made.stdout.startswith("reader@1\tdraft\tsha256:")
    (tmp_path / "reader.json").write_text(json.dumps({"name": "reader", "limits": {"max_steps": 5}}))
    assert (await command("version", tmp_path / "reader.json")).stdout.startswith("reader@2\tdraft")
    for number in (1, 2):
        assert (await command("promote", "reader", number)).stdout == f"reader@{number}\tactive\n"
    assert (await command("rollback", "reader")).stdout == "reader@1\tactive\n"
    assert (await command("list")).stdout.splitlines()[1:] == ["reader\t1/2\tReads."]
    shown = (await command("show", "reader")).stdout
    assert "Change nothing." in shown
    assert "expires_seconds: 77" in shown
    assert "- '*.a.example.org:443'" in shown
    assert "state: deprecated" in shown


async def test_a_definition_whose_version_was_refused_is_created_once_it_is_mended(
    command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "reader.yaml"
    file.write_text("name: reader\ntools: [rm]\n")
    assert "There is no tool 'rm'." in (await command("create", file)).stderr
    file.write_text("name: reader\n")
    assert (await command("create", file)).stdout.startswith("reader@1\tdraft")
    again = await command("create", file)
    assert (again.exit_code, "(conflict)" in again.stderr) == (1, True)


async def test_what_is_refused_is_told_and_is_no_success(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    for text in ("name: [", "- name", "description: no name", "\x00"):
        file.write_text(text)
        assert (await command("create", file)).exit_code == 2, text
    file.write_text("name: reader\ntools: [rm]\n")
    refused = await command("create", file)
    assert refused.exit_code == 2
    assert "There is no tool 'rm'." in refused.stderr
    assert "(not_found)" in (await command("rollback", "nobody")).stderr
