"""Crash truth: whatever is killed in the middle of whatever, every run ends once and nothing is lost or done twice."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from codeagent.broker.topics import AGENT_WORKER, PROVIDER_WORKER, SANDBOX_WORKER
from tests.acceptance.checks import (
    Watched,
    added_lines,
    cancel_before_submit,
    in_background,
    ledgers,
    problems_in_log,
    query,
    submit_surely,
    upload,
)
from tests.acceptance.conversations import EMPTY, LinesUntilToldToStop, line_writer
from tests.acceptance.dying import Plan
from tests.acceptance.system import LEASE_SECONDS, System, UpSystem, client, wait_until
from tests.acceptance.windows import OF_TWO_OWNERS
from tests.conftest import SEED
from tests.servers.model_server import ModelServer

RUNS = 20
TWO_AGENTS = str(OF_TWO_OWNERS[0])
WORKERS = (AGENT_WORKER, PROVIDER_WORKER, SANDBOX_WORKER)


@contextmanager
def tended(system: System) -> Iterator[None]:
    """What dies is started again."""
    ended = threading.Event()

    def tend() -> None:
        while not ended.wait(0.05):
            system.tend()

    thread = threading.Thread(target=tend)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def twins(system: System) -> Iterator[None]:
    """Second workers, so that somebody is there to take over, and every run has two owners."""
    processes = [system.twin(role) for role in WORKERS]
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)


def pause(system: System) -> None:
    """The first of the effect workers stand still for longer than a lease, with work in their hands."""
    busy = "SELECT kind FROM effects WHERE token IS NOT NULL AND NOT recorded GROUP BY kind HAVING count(*) > 1"
    wait_until(lambda: len(query(system.database_url, busy)) == 2, 20, "work in both kinds of hands")
    for role in (PROVIDER_WORKER, SANDBOX_WORKER):
        system.signal(role, signal.SIGSTOP)
    time.sleep(LEASE_SECONDS + 1.0)
    for role in (PROVIDER_WORKER, SANDBOX_WORKER):
        system.signal(role, signal.SIGCONT)


def meet_every_window(system: System, plan: Plan) -> None:
    """First what one process of each role can meet, then what it takes two workers to meet."""
    of_two_owners = {str(window) for window in OF_TWO_OWNERS}

    def missing(windows: set[str]) -> set[str]:
        return windows - plan.met().keys()

    wait_until(lambda: not missing(plan.planned().keys() - of_two_owners), 150, "every window of one process")
    with twins(system):
        wait_until(lambda: TWO_AGENTS in plan.met(), 60, TWO_AGENTS)
        while missing(of_two_owners):
            pause(system)


def check_completed(system: System, run: Watched) -> None:
    """The run ended once; each command that it was told of wrote its line once."""
    api = client(system)
    final = api.run(run.run_id)
    assert final["status"] == "completed", final
    commands = run.names.count("tool.call.completed")
    patch = api.artifact(final["artifacts"][0]["digest"]).decode()
    assert added_lines(patch) == [f"line-{number}" for number in range(commands)]


def check_everything_once(system: System, runs: list[Watched]) -> None:
    for run in runs:
        assert run.is_contiguous_to_its_end(), run
        assert problems_in_log(system.database_url, run.run_id) == []
    twice = "SELECT stream_id FROM events WHERE stream_id !~ '^run-' GROUP BY stream_id, event_type HAVING count(*) > 1"
    assert query(system.database_url, twice) == []
    assert ledgers(system.database_url, patience_seconds=40) == {"effects": 0, "outbox": 0}


@pytest.mark.timeout(400)
def test_a_process_is_killed_in_every_window_while_twenty_runs_are_at_work(
    system: System, plan: Plan, model_server: ModelServer, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    script = LinesUntilToldToStop(least=3, most=60, model_seconds=0.5, command_seconds=0.2)
    model_server.script = script
    digest = upload(client(system), EMPTY, tmp_path)
    body = {"task": "Write.", "source": {"kind": "archive", "digest": digest}, "model": "local/scripted"}

    def submit_and_follow(number: int) -> Watched:
        # Most submissions meet a system in which processes are dying already.
        time.sleep(number * 0.3)
        watched = Watched(submit_surely(client(system), body, f"run-{number}"))
        watched.follow(client(system))
        return watched

    def cancel_at_work() -> Watched:
        watched = Watched(submit_surely(client(system), body, "canceled"))
        for event in client(system).follow(watched.run_id):
            watched.see(event)
            if watched.names.count("tool.call.started") == 2 and event.name == "tool.call.started":
                client(system).cancel(watched.run_id)
        return watched

    def cancel_first() -> Watched:
        cancel_before_submit(system, "canceled first")
        watched = Watched(submit_surely(client(system), body, "canceled first"))
        watched.follow(client(system))
        return watched

    with tended(system):
        following = [in_background(partial(submit_and_follow, number)) for number in range(RUNS)]
        canceled = [in_background(cancel_at_work), in_background(cancel_first)]
        try:
            meet_every_window(system, plan)
        finally:
            script.enough.set()
            tell(f"seed {SEED}")
            for line in plan.met().values():
                tell(line)
        runs = [future.result(120) for future in following]
        stopped = [future.result(120) for future in canceled]
    for run in runs:
        check_completed(system, run)
    assert [run.names[-1] for run in stopped] == ["run.canceled"] * 2
    assert stopped[1].names == ["run.cancel_requested", "run.submitted", "run.canceled"]
    check_everything_once(system, [*runs, *stopped])
    assert plan.planned().keys() == plan.met().keys()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("victim", ["broker", "postgres"])
def test_the_embedded_servers_are_killed_and_everything_goes_on(
    up_system: UpSystem, model_server: ModelServer, tmp_path: Path, victim: str
) -> None:
    model_server.script = line_writer(6, model_seconds=0.2)
    api = client(up_system)
    digest = upload(api, EMPTY, tmp_path)
    body = {"task": "Write.", "source": {"kind": "archive", "digest": digest}, "model": "local/scripted"}
    runs = [Watched(api.submit(body, f"{victim}-{number}")["id"]) for number in range(4)]
    followers = [in_background(partial(run.follow, client(up_system))) for run in runs]
    time.sleep(1.0)
    up_system.kill(victim)
    for follower in followers:
        follower.result(200)
    assert all(run.is_contiguous_to_its_end() for run in runs)
    assert {api.run(run.run_id)["status"] for run in runs} == {"completed"}
    for run in runs:
        patch = api.artifact(api.run(run.run_id)["artifacts"][0]["digest"]).decode()
        assert added_lines(patch) == [f"line-{number}" for number in range(6)]
    assert ledgers(up_system.database_url) == {"effects": 0, "outbox": 0}
