"""`codeagent replay --live`: where another version decides otherwise, it goes on with real calls and real files."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from codeagent.cli.client import Client
from tests.acceptance.checks import ledgers, listed, problems_in_log, upload
from tests.acceptance.conversations import BROKEN, tool
from tests.acceptance.system import UpSystem, client, codeagent
from tests.servers.model_server import ModelServer
from tests.servers.script import Call, Reply, Script

MODEL = "local/scripted"
NOTE, EDIT = (
    tool("shell", 0, command="echo a note > note.txt"),
    tool("edit_file", 1, path="calc.py", old="return a - b", new="return a + b"),
)
REWRITE = tool("write_file", 1, path="calc.py", content="def add(a, b):\n    return a + b\n")
CHECK = tool("shell", 2, command="cat note.txt")


@pytest.fixture
def providers_file(place: Path, model_server: ModelServer) -> Path:
    """A model whose replies cost 0.000018 USD each."""
    path = place / "providers.json"
    prices = {"scripted": {"input_usd": "1", "output_usd": "1"}}
    provider = {"name": "local", "kind": "openai", "base_url": model_server.openai_url, "prices": prices}
    path.write_text(json.dumps([{**provider, "context_window": 100_000}]))
    return path


def says(*calls: Call) -> Script:
    """One call a reply, then the end."""
    replies = [Reply(calls=(call,)) for call in calls]
    return Script([*replies, Reply(calls=(tool("submit", len(calls), summary="It adds."),))], "turn")


def recorded(api: Client, folder: Path) -> str:
    """A run that leaves a note, repairs a file and submits."""
    body = {"task": "Make it add.", "source": {"kind": "archive", "digest": upload(api, BROKEN, folder)}}
    run_id = str(api.submit({**body, "model": MODEL}, "recorded")["id"])
    assert "run.completed" in [event.name for event in api.follow(run_id)]
    return run_id


@pytest.mark.timeout(240)
def test_the_other_version_goes_on_from_the_divergence_on_the_files_of_that_moment(
    up_system: UpSystem, model_server: ModelServer, tmp_path: Path
) -> None:
    api = client(up_system)
    model_server.script = says(NOTE, EDIT)
    run_id = recorded(api, tmp_path)
    before = list(api.recorded(run_id))
    version = {"instructions": "Write whole files.", "tools": ["shell", "read_file", "write_file"]}
    api.make("/v1/agents", {"name": "writer"}, "agent")
    api.make("/v1/agents/writer/versions", version, "version")

    model_server.script = says(NOTE, REWRITE, CHECK)
    asked = len(model_server.received)
    command = codeagent("replay", run_id, "--agent", "writer@1", "--live", "--data-dir", str(up_system.data_dir))
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "recorded  run_tool edit_file" in done.stdout
    assert "+def add" not in done.stdout
    assert "+    return a + b" in done.stdout
    cost = "3 replies cost 0.000054 USD, the recorded run's 2 from there on 0.000036 USD, difference 0.000018"
    assert cost in done.stdout

    first = json.dumps(model_server.received[asked].body["messages"])
    assert len(model_server.received) == asked + 3, "what was recorded is not asked again"
    assert "Write whole files." in first
    assert "echo a note > note.txt" in first
    assert "return a + b" not in first, "what came after the divergence is not told"

    [live_id] = [run["id"] for run in listed(api, "/v1/runs?agent=writer", "completed")]
    assert api.run(live_id)["replays_run_id"] == run_id
    outputs = [event.data["data"]["output"] for event in api.follow(live_id) if event.name == "tool.call.completed"]
    assert "a note" in outputs[-1]
    patch = api.artifact(api.run(live_id)["artifacts"][0]["digest"]).decode()
    assert "+a note" in patch
    assert list(api.recorded(run_id)) == before, "the recorded run stays as it was"
    assert problems_in_log(up_system.database_url, live_id) == []

    again = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=90, check=True)
    live = json.loads(again.stdout)["live"]
    assert (live["run_id"], live["status"], live["difference_usd"]) == (live_id, "completed", "0.000018")
    assert len(model_server.received) == asked + 3, "a repeat is the same run"
    assert ledgers(up_system.database_url) == {"effects": 0, "outbox": 0}
