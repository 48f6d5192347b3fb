"""`codeagent sandbox` on the machine of a worker: single commands, what there is, its end, and what a crash left."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codeagent.cli import sandbox_machine
from codeagent.cli.sandbox_exec import ExecRequest, exec_in_sandbox
from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.notes import Note, Notes
from codeagent.sandboxes.survey import survey
from codeagent.sandboxes.workspaces import name_for
from tests.integration.sandboxes.support import archive, require_root_and_runsc
from tests.integration.sandboxes.test_crash import WORKER, wait_for_orphans
from tests.integration.sandboxes.test_worker import RUN, TENANT, Worker, base, new_worker, worker

__all__ = ["base", "new_worker", "worker"]  # fixtures


def command(state_dir: Path, *words: str) -> list[str]:
    program = "from codeagent.cli.main import app; app()"
    return [sys.executable, "-c", program, "sandbox", "exec", "--state-dir", str(state_dir), *words]


def assert_nothing_is_left(state_dir: Path) -> None:
    seen = survey(state_dir)
    assert (seen.live, seen.workspaces, seen.processes) == (False, (), 0)
    assert (seen.groups, seen.mounted, seen.bundles) == (0, 0, 0)


def test_a_record_is_the_last_line_and_says_everything(state_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("copied in\n")
    script = "cat given; echo $WORD >&2; : > /workspace/own; python3 -c 'x = bytearray(99 << 20)'; exit 3"
    words = (
        "--json",
        "--workspace",
        str(tmp_path),
        "--limit",
        "memory_bytes=64M",
        "--env",
        "WORD=said",
        "--driver",
        "bwrap",
    )
    done = subprocess.run(command(state_dir, *words, "--", "sh", "-c", script), capture_output=True, check=False)
    [line] = done.stdout.splitlines()
    record = json.loads(line)
    assert (record["reason"], record["limits_hit"], record["driver"], record["level"]) == (
        "oom",
        ["memory"],
        "bwrap",
        2,
    )
    assert (record["stdout"], record["stderr"].splitlines()[0]) == ("copied in\n", "said")
    assert record["rusage"]["wall_seconds"] > 0
    assert record["rusage"]["oom_kills"] > 0
    assert done.returncode in (3, 137)
    assert [path.name for path in tmp_path.iterdir()] == ["given"]
    assert_nothing_is_left(state_dir)


def test_the_record_of_a_stopped_command_says_cancelled(state_dir: Path) -> None:
    words = ("--json", "--", "sh", "-c", "echo said; touch begun; exec sleep 600")
    with subprocess.Popen(command(state_dir, *words), stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        while not list(state_dir.glob("workspaces/*/files/begun")):
            time.sleep(0.05)
        running.terminate()
        record = json.loads(running.stdout.read().splitlines()[-1])
    assert (record["reason"], record["stdout"], running.returncode) == ("cancelled", "said\n", 143)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_output_comes_while_the_command_runs_and_a_signal_ends_it(state_dir: Path, number: signal.Signals) -> None:
    words = ("--", "sh", "-c", "echo started; echo beside >&2; (setsid sleep 600 &); sleep 600")
    with subprocess.Popen(command(state_dir, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert (running.stdout.readline(), running.stderr.readline()) == (b"started\n", b"beside\n")
        running.send_signal(number)
        assert running.wait(30) == 128 + number
    assert_nothing_is_left(state_dir)


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ({"limits": ("memory=1G",)}, 2, "there is no limit 'memory'; limits: wall_seconds"),
        ({"env": ("A",)}, 2, "NAME=VALUE"),
        ({"driver": "chroot"}, 125, "there is no driver chroot: there are bwrap, "),
        ({"workspace": Path("/no/such")}, 125, "/no/such cannot be read"),
    ],
)
def test_what_cannot_be_done_is_said_and_is_a_record_too(
    state_dir: Path, words: dict[str, Any], status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ExecRequest(("true",), None, None, (), (), 2, "auto", state_dir)
    assert exec_in_sandbox(replace(asked, **words), as_json=True) == status
    told = capsys.readouterr()
    assert says in told.err
    record = json.loads(told.out.splitlines()[-1])
    assert (record["reason"], record["exit_code"]) == ("sandbox_error", None)
    assert says in record["detail"]


async def test_live_workspaces_are_listed_and_one_is_ended(
    worker: Worker, base: str, state_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await worker.shell("true", base, run="run_idle")
    hanging = asyncio.create_task(worker.shell("echo started; sleep 600", base))
    while "started" not in worker.live("stdout"):
        await asyncio.sleep(0.02)
    assert await asyncio.to_thread(sandbox_machine.list_workspaces, state_dir, as_json=True) == 0
    rows = {row["run_id"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert {run: (row["state"], row["operation"], row["tenant_id"]) for run, row in rows.items()} == {
        "run_idle": ("idle", None, TENANT),
        RUN: ("working", "shell", TENANT),
    }
    assert (rows[RUN]["workspace"], rows[RUN]["worker_pid"]) == (name_for(RUN), os.getpid())
    assert rows[RUN]["processes"] >= 2
    assert rows["run_idle"]["processes"] <= 2  # what is parked for its next command
    assert rows[RUN]["slot"] != rows["run_idle"]["slot"]
    assert sandbox_machine.run_of(state_dir, name_for(RUN)) == RUN

    ending = asyncio.create_task(asyncio.to_thread(sandbox_machine.kill, state_dir, name_for(RUN)))
    while not ending.done():
        await worker.performer.workspaces.obey()
        await asyncio.sleep(0.02)
    assert await ending == 0
    told = await hanging
    assert (told.ended.reason, told.actor_id) == ("killed", f"operator:{os.environ.get('SUDO_UID', os.getuid())}")
    assert "ended shell" in capsys.readouterr().out
    assert [found.note and found.note.run_id for found in survey(state_dir).workspaces] == ["run_idle"]


async def test_what_is_not_there_is_not_ended(worker: Worker, base: str, state_dir: Path) -> None:
    await worker.shell("true", base)
    assert sandbox_machine.kill(state_dir, "run_other") == 2
    assert sandbox_machine.recover(state_dir, as_json=False) == 1  # a worker lives
    assert len(survey(state_dir).workspaces) == 1


async def test_what_a_dead_worker_left_is_listed_removed_and_told(
    state_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warm = BubblewrapDriver(state_dir)
    await warm.reap(frozenset())
    await warm.shutdown()
    source = archive(tmp_path, {"README": b"x" * 100_000})
    words = [sys.executable, "-c", WORKER, str(state_dir), str(source), "bwrap"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=Path.cwd()) as dying:
        assert dying.stdout is not None
        assert dying.stdout.readline() == b"running\n"
        now = "2026-11-27T00:00:00Z"
        note = Note(name_for("doomed 0"), "run_doomed", TENANT, "bwrap", 2, dying.pid, now, "working", now, "shell")
        notes = Notes(state_dir)
        notes.prepare()
        notes.write(note)
        dying.kill()
    await asyncio.to_thread(wait_for_orphans)
    assert sandbox_machine.kill(state_dir, "run_doomed") == 1  # nobody there who could
    assert await asyncio.to_thread(sandbox_machine.list_workspaces, state_dir, as_json=True) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {(row["state"], row["run_id"]) for row in rows} == {("left", "run_doomed"), ("left", None)}
    assert all(row["size_bytes"] >= 100_000 for row in rows)
    assert await asyncio.to_thread(sandbox_machine.recover, state_dir, as_json=True) == 0
    [told] = map(json.loads, capsys.readouterr().out.splitlines())
    assert told["left"] == 0
    assert (told["removed"]["workspaces"], told["removed"]["mounts"], told["removed"]["groups"]) == (3, 6, 3)
    assert_nothing_is_left(state_dir)
    assert list(notes.all()) == []


@pytest.mark.parametrize("has_bubblewrap", [True, False])
async def test_what_a_dead_worker_left_of_gvisors_kernels_is_removed(
    state_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    has_bubblewrap: bool,
) -> None:
    require_root_and_runsc()
    words = [sys.executable, "-c", WORKER, str(state_dir), str(archive(tmp_path)), "runsc"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=Path.cwd()) as dying:
        assert dying.stdout is not None
        assert dying.stdout.readline() == b"running\n"
        assert sandbox_machine.recover(state_dir, as_json=True) == 1, "it lives"
        dying.kill()
    await asyncio.to_thread(wait_for_orphans)
    left = sorted((state_dir / "bundles").iterdir())
    assert [listed(bundle) for bundle in left] == [[bundle.name] for bundle in left]
    assert survey(state_dir).bundles == 2
    # One that had not yet tied itself to the worker.
    stray = [f"--root={left[0]}/state", "run"]
    waiting = ["runsc-sandbox", "-c", "import time; time.sleep(600)", *stray]
    if not has_bubblewrap:
        there = shutil.which
        monkeypatch.setattr(shutil, "which", lambda name, **how: None if name == "bwrap" else there(name, **how))
        monkeypatch.setattr(BubblewrapDriver, "reap", None)
    with subprocess.Popen(waiting, executable=sys.executable) as outliving:
        assert await asyncio.to_thread(sandbox_machine.recover, state_dir, as_json=True) == 0
        assert outliving.wait(5) == -signal.SIGKILL
    assert json.loads(capsys.readouterr().out)["removed"]["bundles"] == 2
    assert [listed(bundle) for bundle in left] == [[], []]
    assert_nothing_is_left(state_dir)


def listed(bundle: Path) -> list[str]:
    """The containers that runsc knows of a bundle."""
    words = ("runsc", f"--root={bundle}/state", "list", "--quiet")
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
