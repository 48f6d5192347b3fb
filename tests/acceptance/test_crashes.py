"""Crash truth: whatever is killed in the middle of whatever, every run ends once and nothing is lost or done twice."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.acceptance.checks import Watched, added_lines, ledgers, problems_in_log, query, upload
from tests.acceptance.conversations import EMPTY, line_writer
from tests.acceptance.system import LEASE_SECONDS, ROLES, System, UpSystem, client
from tests.servers.model_server import ModelServer

SEED = int(os.environ.get("CODEAGENT_TEST_SEED", "7"))
RUNS = 20
CALLS = 6


class Killer(threading.Thread):
    """Kills roles in a seeded order for as long as runs are at work, each role several times."""

    def __init__(self, system: System, rounds: int) -> None:
        super().__init__()
        self.killed: Counter[str] = Counter()
        self._system = system
        self._chance = random.Random(SEED)
        self._rounds = rounds
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            for _ in range(self._rounds):
                for role in self._chance.sample(ROLES, len(ROLES)):
                    time.sleep(self._chance.uniform(0.1, 0.5))
                    self._await_work(role)
                    self._system.kill(role)
                    self.killed[role] += 1
                self._await_work("sandbox-worker")
                self._pause("sandbox-worker")
        except BaseException as error:
            self.failure = error

    def _await_work(self, role: str) -> None:
        """Until the role has claimed something it has not recorded, or the runs are over."""
        kind = {"provider-worker": "provider", "sandbox-worker": "sandbox"}.get(role)
        for _ in range(100 if kind else 0):
            [row] = query(
                self._system.database_url,
                f"SELECT count(*) FROM effects WHERE kind = '{kind}' AND token IS NOT NULL AND NOT recorded",
            )
            if row["count"]:
                return
            time.sleep(0.05)

    def _pause(self, role: str) -> None:
        """An owner that is only paused for longer than its lease wakes up to find its work taken over."""
        self._system.signal(role, signal.SIGSTOP)
        time.sleep(LEASE_SECONDS + 1.5)
        self._system.signal(role, signal.SIGCONT)
        self.killed[f"{role} (paused)"] += 1


def windows(system: System) -> dict[str, int]:
    """Which windows were hit, as the log and the processes' own messages tell."""
    log = getattr(system, "log", lambda: "")()
    [taken] = query(
        system.database_url,
        """SELECT count(*) FILTER (WHERE event_type = 'provider.call.ended') AS calls,
                  count(*) FILTER (WHERE event_type = 'sandbox.exec.ended') AS operations
           FROM events WHERE event_type IN ('provider.call.ended', 'sandbox.exec.ended')
             AND (convert_from(data, 'UTF8')::jsonb ->> 'attempt')::int > 1""",
    )
    return {
        "model calls taken over": taken["calls"],
        "sandbox operations taken over": taken["operations"],
        "claims found lost": log.count('"why":"lost"') + log.count('"event":"effect.stale"'),
    }


@pytest.mark.timeout(400)
def test_every_kind_of_process_is_killed_while_twenty_runs_are_at_work(
    system: System, model_server: ModelServer, tmp_path: Path
) -> None:
    model_server.script = line_writer(CALLS, model_seconds=0.6, command_seconds=0.3)
    api = client(system)
    digest = upload(api, EMPTY, tmp_path)
    body = {"task": "Write.", "source": {"kind": "archive", "digest": digest}, "model": "local/scripted"}
    killer = Killer(system, rounds=2)
    with ThreadPoolExecutor(RUNS) as pool:
        runs: list[Watched] = []

        def submit_and_follow(number: int) -> None:
            # Half of the submissions meet a system that is already being killed.
            time.sleep(number * 0.3)
            watched = Watched(client(system).submit(body, f"kill-{number}")["id"])
            runs.append(watched)
            watched.follow(client(system))

        followers = [pool.submit(submit_and_follow, number) for number in range(RUNS)]
        time.sleep(1.0)
        killer.start()
        for follower in followers:
            follower.result(300)
    killer.join()
    assert killer.failure is None, killer.failure
    print(f"\nseed {SEED}; killed: {dict(killer.killed)}; windows hit: {windows(system)}")
    assert all(run.is_contiguous_to_its_end() for run in runs)
    for run in runs:
        final = api.run(run.run_id)
        assert final["status"] == "completed", final
        patch = api.artifact(final["artifacts"][0]["digest"]).decode()
        assert added_lines(patch) == [f"line-{number}" for number in range(CALLS)]
        assert problems_in_log(system.database_url, run.run_id) == []
    assert ledgers(system.database_url) == {"effects": 0, "outbox": 0}
    hit = windows(system)
    assert hit["model calls taken over"] > 0
    assert hit["sandbox operations taken over"] > 0


@pytest.mark.timeout(240)
@pytest.mark.parametrize("victim", ["broker", "postgres"])
def test_the_embedded_servers_are_killed_and_everything_goes_on(
    up_system: UpSystem, model_server: ModelServer, tmp_path: Path, victim: str
) -> None:
    model_server.script = line_writer(6, model_seconds=0.2)
    api = client(up_system)
    digest = upload(api, EMPTY, tmp_path)
    body = {"task": "Write.", "source": {"kind": "archive", "digest": digest}, "model": "local/scripted"}
    with ThreadPoolExecutor(4) as pool:
        runs = [Watched(api.submit(body, f"{victim}-{number}")["id"]) for number in range(4)]
        followers = [pool.submit(run.follow, client(up_system)) for run in runs]
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
