"""A sandbox worker and its disk are gone in the middle of a run: another goes on, and nobody can tell from the patch."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from codeagent.broker.topics import SANDBOX_WORKER
from tests.acceptance.checks import Watched, ledgers, problems_in_log, query, upload
from tests.acceptance.conversations import EMPTY, line_writer
from tests.acceptance.system import ServedSystem, client, wait_until
from tests.servers.model_server import ModelServer

CALLS = 6
UNDER_WAY = "SELECT 1 FROM effects WHERE kind = 'sandbox' AND token IS NOT NULL AND NOT recorded"
AGAIN = """SELECT 1 FROM events WHERE event_type = 'sandbox.exec.ended'
    AND convert_from(data, 'UTF8')::jsonb ->> 'run_id' = '%s'
    AND (convert_from(data, 'UTF8')::jsonb ->> 'attempt')::int > 1"""


def begun(system: ServedSystem, folder: Path, key: str) -> Watched:
    api = client(system)
    source = {"kind": "archive", "digest": upload(api, EMPTY, folder)}
    body = {
        "task": "Write.",
        "source": source,
        "model": "local/scripted",
        "verification": {"command": f'test "$(wc -l < lines.txt)" = {CALLS}'},
    }
    return Watched(str(api.submit(body, key)["id"]))


def patch_of(system: ServedSystem, run: Watched) -> bytes:
    api = client(system)
    run.follow(api)
    final = api.run(run.run_id)
    assert (final["status"], final["verdict"]["verdict"]) == ("completed", "passed"), final
    return bytes(api.artifact(final["artifacts"][0]["digest"]))


@pytest.mark.timeout(240)
def test_the_run_completes_elsewhere_with_the_same_patch(
    kafka_system: ServedSystem, model_server: ModelServer, place: Path, tmp_path: Path
) -> None:
    system = kafka_system
    model_server.script = line_writer(CALLS, command_seconds=0.5)
    undisturbed = patch_of(system, begun(system, tmp_path, "undisturbed"))

    run = begun(system, tmp_path, "disturbed")
    for event in client(system).follow(run.run_id):
        if event.name == "tool.call.started" and event.data["data"]["tool_call_id"] == "call_2":
            break
    wait_until(lambda: query(system.database_url, UNDER_WAY), 20, "the command to be under way")
    system.signal(SANDBOX_WORKER, signal.SIGKILL)
    system.processes[SANDBOX_WORKER].wait(10)
    # Mounts outlive the process that made them: their files go, and so does all that can.
    shutil.rmtree(place / "sandboxes", ignore_errors=True)
    twin = system.twin(SANDBOX_WORKER)
    try:
        assert patch_of(system, run) == undisturbed
    finally:
        twin.terminate()
        twin.wait(30)
    assert run.names.count("tool.call.completed") == CALLS
    assert problems_in_log(system.database_url, run.run_id) == []
    assert query(system.database_url, AGAIN % run.run_id) != [], "what was under way was done again"
    assert ledgers(system.database_url) == {"effects": 0, "outbox": 0}
