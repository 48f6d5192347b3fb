"""Runs that ask before they act, on the whole system: people answer over HTTP, on a terminal, in time or not at all."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from codeagent.cli.client import ApiError, Client
from codeagent.clock import new_uuid
from tests.acceptance.checks import Watched, added_lines, ledgers, problems_in_log, upload
from tests.acceptance.conversations import EMPTY, line_writer
from tests.acceptance.system import UpSystem, client, codeagent, wait_until
from tests.servers.model_server import ModelServer

COMMENT = "Not before the release."


@dataclass(frozen=True)
class Running:
    """One system for all tests of this module, whose model asks for two commands and submits."""

    system: UpSystem
    model: ModelServer
    folder: Path

    def start(self, **approvals: object) -> str:
        api = client(self.system)
        source = {"kind": "archive", "digest": upload(api, EMPTY, self.folder)}
        policy = {"tools": ["shell"], **approvals}
        body = {"task": "Do it.", "source": source, "model": "local/scripted", "approvals": policy}
        return str(api.submit(body, str(new_uuid()))["id"])

    def watched(self, run_id: str) -> Watched:
        """The run to its end, which leaves nothing behind."""
        seen = Watched(run_id)
        seen.follow(client(self.system))
        assert seen.is_contiguous_to_its_end()
        assert problems_in_log(self.system.database_url, run_id) == []
        return seen

    def lines(self, run_id: str) -> list[str]:
        """What the run has written."""
        [patch] = client(self.system).run(run_id)["artifacts"]
        return added_lines(client(self.system).artifact(patch["digest"]).decode())


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    folder = Path(tempfile.mkdtemp(prefix="codeagent-approvals-"))
    folder.chmod(0o711)
    with ModelServer(line_writer(2)) as model:
        providers = folder / "providers.json"
        entry = {"name": "local", "kind": "openai", "base_url": model.openai_url, "context_window": 100_000}
        providers.write_text(json.dumps([entry]))
        system = UpSystem(folder / "data", "--providers", str(providers))
        yield Running(system, model, folder)
        system.stop()
    shutil.rmtree(folder, ignore_errors=True)


def question(api: Client, run_id: str, answered: int = 0) -> dict[str, Any]:
    """What the run asks after so many answers."""

    def waits() -> bool:
        run = api.run(run_id)
        assert run["status"] in {"submitted", "working", "input_required"}, run
        return bool(run["pending_approvals"]) and len(api.approvals(run_id)) == answered + 1

    wait_until(waits, 60, f"question {answered + 1} of {run_id}")
    [pending] = api.run(run_id)["pending_approvals"]
    return dict(pending)


def answer(api: Client, asked: dict[str, Any], decision: str, comment: str = "", key: str = "") -> dict[str, Any]:
    _, etag = api.approval(asked["run_id"], asked["id"])
    said = {"decision": decision, "comment": comment}
    return api.answer(asked["run_id"], asked["id"], etag, said, key or str(new_uuid()))


@pytest.mark.timeout(240)
def test_people_allow_once_or_always_or_not(running: Running) -> None:
    api = client(running.system)
    once, always, refused = running.start(), running.start(), running.start()
    for number in range(2):
        asked = question(api, once, number)
        assert f"line-{number}" in asked["arguments"]
        assert answer(api, asked, "allow_once")["status"] == "allowed"
    assert answer(api, question(api, always), "allow_always")["decision"] == "allow_always"
    assert answer(api, question(api, refused), "reject", COMMENT)["status"] == "rejected"
    answer(api, question(api, refused, 1), "allow_once")
    assert running.watched(once).names.count("run.input_required") == 2
    assert running.watched(always).names.count("run.input_required") == 1
    assert running.watched(refused).names.count("tool.call.failed") == 1
    assert {run: api.run(run)["status"] for run in (once, always, refused)} == dict.fromkeys(
        (once, always, refused), "completed"
    )
    assert running.lines(once) == running.lines(always) == ["line-0", "line-1"]
    assert running.lines(refused) == ["line-1"]
    assert any(COMMENT in json.dumps(received.body) for received in running.model.received)
    assert COMMENT not in running.system.log()
    assert ledgers(running.system.database_url) == {"effects": 0, "outbox": 0}


@pytest.mark.timeout(240)
def test_nobody_answers_or_somebody_cancels(running: Running) -> None:
    api = client(running.system)
    unanswered, canceled = running.start(expires_seconds=5), running.start()
    question(api, canceled)
    api.cancel(canceled)
    assert running.watched(canceled).names[-2:] == ["run.cancel_requested", "run.canceled"]
    names = running.watched(unanswered).names
    assert names[names.index("run.input_expired") :][:2] == ["run.input_expired", "run.resumed"]
    run = api.run(unanswered)
    assert (run["status"], run["status_reason"]) == ("failed", "approval_expired")
    assert [approval["status"] for approval in api.approvals(unanswered)] == ["expired"]
    assert ledgers(running.system.database_url) == {"effects": 0, "outbox": 0}


@pytest.mark.timeout(240)
def test_workers_die_while_a_run_waits_and_an_answer_counts_once(running: Running) -> None:
    api = client(running.system)
    run_id = running.start()
    asked = question(api, run_id)
    for role in ("agent-worker", "sandbox-worker", "relay"):
        running.system.kill(role)
    answer(api, asked, "allow_always", key="first")
    assert answer(api, asked, "allow_always", key="first")["status"] == "allowed"
    with pytest.raises(ApiError, match="invalid_state_transition"):
        answer(api, asked, "reject")
    assert running.watched(run_id).names.count("run.input_received") == 1
    assert running.lines(run_id) == ["line-0", "line-1"]


@pytest.mark.timeout(240)
def test_a_run_is_answered_from_another_terminal(running: Running) -> None:
    data_dir = ("--data-dir", str(running.system.data_dir))
    watching = subprocess.Popen(_run(running), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert watching.stdout is not None
    said = ""
    for expected in ("sent to the model", "go on"):
        said += _until(watching, "answer with codeagent approvals allow")
        run_id, approval_id = said.split()[-4:-2] if said.endswith("(or reject)\n") else said.split()[-2:]
        listed = subprocess.run(codeagent("approvals", "list", *data_dir), capture_output=True, text=True, check=True)
        assert f"{run_id} {approval_id}  pending" in listed.stdout
        assert "command: sleep 0.0; echo line-" in listed.stdout
        command = (
            ("reject", run_id, approval_id, "--comment", expected)
            if expected != "go on"
            else ("allow", run_id, approval_id)
        )
        done = subprocess.run(codeagent("approvals", *command, *data_dir), capture_output=True, text=True, check=True)
        assert done.stdout in {"rejected\n", "allowed\n"}
    late = subprocess.run(
        codeagent("approvals", "allow", run_id, approval_id, *data_dir), capture_output=True, text=True, check=False
    )
    assert (late.returncode, "invalid_state_transition" in late.stderr) == (1, True)
    rest, _ = watching.communicate(timeout=60)
    assert watching.returncode == 0, said + rest
    assert "refused by" in said + rest
    nothing = subprocess.run(codeagent("approvals", "list", *data_dir), capture_output=True, text=True, check=True)
    assert run_id not in nothing.stdout


@pytest.mark.timeout(240)
def test_a_run_is_answered_on_the_terminal_it_is_watched_on(running: Running) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(_run(running), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        for typed in (b"what\ny\n", b"n\n"):
            _until_shown(ours, b"allow it? ")
            os.write(ours, typed)
        _until_shown(ours, b"why not, for the model: ")
        os.write(ours, b"enough\n")
        shown = _until_shown(ours, b"completed")
        assert process.wait(60) == 0
    finally:
        process.kill()
        os.close(ours)
    assert re.search(rb"refused.*enough", shown)


def _run(running: Running) -> list[str]:
    repo = running.folder / "repo"
    repo.mkdir(exist_ok=True)
    (repo / "README").write_text("nothing yet\n")
    more = ("--model", "local/scripted", "--data-dir", str(running.system.data_dir))
    return codeagent("run", "Do it.", "--repo", str(repo), "--ask", "shell", *more)


def _until(process: subprocess.Popen[str], words: str) -> str:
    """What a process has printed, up to the line with `words`."""
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"it never said {words!r}: {said}")


def _until_shown(terminal: int, words: bytes, seconds: float = 60.0) -> bytes:
    shown, deadline = b"", time.monotonic() + seconds
    while words not in shown:
        ready, _, _ = select.select([terminal], [], [], max(deadline - time.monotonic(), 0))
        assert ready, f"it never showed {words!r}: {shown!r}"
        shown += os.read(terminal, 65_536)
    return shown
