"""The main job: a task goes in over HTTP, a verified patch comes out, and everyone sees all of it."""

from __future__ import annotations

import json
import random
import subprocess
import threading
from pathlib import Path

import pytest

from codeagent.cli.client import Client
from tests.acceptance.checks import Watched, ledgers, problems_in_log, query, upload
from tests.acceptance.conversations import BROKEN, EMPTY, line_writer, ten_tool_calls
from tests.acceptance.system import System, UpSystem, client, codeagent
from tests.servers.model_server import ModelServer

MODEL = "local/scripted"


def start(
    api: Client, files: dict[str, str], folder: Path, key: str, verify: str | None = None, **limits: object
) -> str:
    body: dict[str, object] = {
        "task": "Do it.",
        "source": {"kind": "archive", "digest": upload(api, files, folder)},
        "model": MODEL,
        "limits": limits,
    }
    if verify is not None:
        body["verification"] = {"command": verify}
    return str(api.submit(body, key)["id"])


@pytest.mark.timeout(240)
def test_ten_tool_calls_against_an_openai_compatible_server(
    system: System, model_server: ModelServer, tmp_path: Path
) -> None:
    model_server.script = ten_tool_calls()
    api = client(system)
    judge = "python3 -c 'from calc import add; assert add(1, 1) == 2'"
    watched = Watched(start(api, BROKEN, tmp_path, "ten", verify=judge))
    watched.follow(api)
    assert watched.is_contiguous_to_its_end()
    run = api.run(watched.run_id)
    assert (run["status"], run["message"], run["steps"]) == ("completed", "add() adds again.", 10)
    assert run["usage"]["input_tokens"] == 110
    assert (run["verdict"]["verdict"], run["verdict"]["exit_code"]) == ("passed", 0)
    patch = api.artifact(run["artifacts"][0]["digest"]).decode()
    assert "-    return a - b\n+    return a + b\n" in patch
    assert "+fixed add" in patch
    pages = [event for event in api.follow(watched.run_id) if event.name == "tool.call.completed"]
    outputs = {event.data["data"]["tool_call_id"]: event.data["data"] for event in pages}
    assert outputs["call_3"]["exit_code"] == 1
    assert outputs["call_8"]["exit_code"] == 0
    assert "0 times" in outputs["call_5"]["output"]
    assert outputs["call_7"]["reason"] == "error"
    assert problems_in_log(system.database_url, watched.run_id) == []
    assert ledgers(system.database_url) == {"effects": 0, "outbox": 0}


@pytest.mark.timeout(240)
def test_every_client_sees_every_event_once_wherever_it_is_cut_off(
    system: System, model_server: ModelServer, tmp_path: Path
) -> None:
    model_server.script = line_writer(8, model_seconds=0.05)
    run_id = start(client(system), EMPTY, tmp_path, "join")
    seen: list[list[int]] = []

    def follow_with_cuts(seed: int) -> None:
        chance, api, ids = random.Random(seed), client(system), [0]
        ended = False
        while not ended:
            budget = chance.randint(1, 6)
            for event in api._stream(run_id, ids[-1]):
                if event.id is not None:
                    ids.append(event.id)
                    budget -= 1
                ended = event.name in {"run.completed", "run.failed"}
                if budget == 0 or ended:
                    break
        seen.append(ids[1:])

    threads = [threading.Thread(target=follow_with_cuts, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    whole = Watched(run_id)
    whole.follow(client(system))
    assert len(seen) == 12
    assert all(ids == whole.ids for ids in seen)
    assert whole.is_contiguous_to_its_end()


@pytest.mark.timeout(240)
def test_a_cancel_stops_the_command_and_ends_the_run(system: System, model_server: ModelServer, tmp_path: Path) -> None:
    model_server.script = line_writer(3, command_seconds=60)
    api = client(system)
    watched = Watched(start(api, EMPTY, tmp_path, "cancel"))
    follower = threading.Thread(target=watched.follow, args=(client(system),))
    follower.start()
    while "tool.call.started" not in watched.names:
        follower.join(0.05)
    api.cancel(watched.run_id)
    follower.join(30)
    assert watched.names[-2:] == ["run.cancel_requested", "run.canceled"]
    assert api.run(watched.run_id)["status"] == "canceled"
    assert ledgers(system.database_url) == {"effects": 0, "outbox": 0}


@pytest.mark.timeout(240)
def test_a_deadline_ends_the_run_and_keeps_what_was_done(
    system: System, model_server: ModelServer, tmp_path: Path
) -> None:
    model_server.script = line_writer(80, command_seconds=0.3)
    api = client(system)
    watched = Watched(start(api, EMPTY, tmp_path, "deadline", deadline_seconds=12))
    watched.follow(api)
    run = api.run(watched.run_id)
    assert (run["status"], run["status_reason"]) == ("failed", "deadline_exceeded")
    assert "+line-0" in api.artifact(run["artifacts"][0]["digest"]).decode()


@pytest.mark.timeout(240)
def test_the_command_line_runs_shows_applies_and_says_how_it_ended(
    up_system: UpSystem, model_server: ModelServer, tmp_path: Path
) -> None:
    model_server.script = ten_tool_calls()
    for name, text in BROKEN.items():
        (tmp_path / name).write_text(text)
    command = codeagent(
        "run", "Fix it.", "--repo", str(tmp_path), "--model", MODEL, "--data-dir", str(up_system.data_dir), "--apply"
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "return a + b" in (tmp_path / "calc.py").read_text()
    assert (tmp_path / "docs/notes.txt").read_text() == "fixed add\n"
    assert "completed add() adds again." in done.stdout
    as_json = subprocess.run([*command[:-1], "--json"], capture_output=True, text=True, timeout=120, check=False)
    events = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert events[-1]["event"] == "stream.end"
    assert [event["id"] for event in events if event["id"]] == list(range(1, len([e for e in events if e["id"]]) + 1))
    failing = subprocess.run(
        [*command[:-1], "--max-steps", "1"], capture_output=True, text=True, timeout=120, check=False
    )
    assert failing.returncode == 1
    nowhere = codeagent("run", "x", "--repo", str(tmp_path / "nowhere"), "--data-dir", str(up_system.data_dir))
    assert subprocess.run(nowhere, capture_output=True, timeout=60, check=False).returncode == 2


@pytest.mark.timeout(240)
def test_a_changed_byte_in_the_database_is_found_and_named(
    up_system: UpSystem, model_server: ModelServer, tmp_path: Path
) -> None:
    model_server.script = line_writer(1)
    watched = Watched(start(client(up_system), EMPTY, tmp_path, "tamper"))
    watched.follow(client(up_system))
    verify = codeagent("verify", watched.run_id, "--data-dir", str(up_system.data_dir))
    sound = subprocess.run(verify, capture_output=True, text=True, timeout=60, check=False)
    assert sound.returncode == 0
    assert "log verified" in sound.stdout
    [event] = query(
        up_system.database_url,
        f"""UPDATE events SET data = set_byte(data, 20, get_byte(data, 20) # 1)
            WHERE stream_id = 'run-{watched.run_id}' AND stream_version = 6 RETURNING event_id""",
    )
    tampered = subprocess.run(verify, capture_output=True, text=True, timeout=60, check=False)
    assert tampered.returncode == 1
    assert str(event["event_id"]) in tampered.stdout
    audit = codeagent("audit", "verify", "--anchors-from-topic", "--data-dir", str(up_system.data_dir))
    whole = subprocess.run(audit, capture_output=True, text=True, timeout=60, check=False)
    assert whole.returncode == 1
    [line, kept] = whole.stdout.splitlines()
    assert kept.startswith("projections verified: ")
    assert line.startswith("FAILED data_changed at ")
    assert str(event["event_id"]) in line
