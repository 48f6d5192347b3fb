"""The supervisor of `codeagent up`: what it starts it watches, restarts, stops in order and never leaves behind."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from codeagent.embedded import processes
from codeagent.embedded.children import fork_child, run_forked
from codeagent.embedded.kafka_probe import answers_kafka
from codeagent.embedded.processes import ChildSpec, ProcessSupervisor
from codeagent.embedded.spawning import wait_until
from tests.integration.embedded.harness import ROOT, all_gone, is_running, kill_all, with_descendants


class App:
    """A running `supervised_app`, with its story and its list of processes."""

    def __init__(self, directory: Path, mode: str, *arguments: object) -> None:
        self.directory = directory
        command = [sys.executable, "-m", "tests.integration.embedded.supervised_app", mode, str(directory)]
        self.process = subprocess.Popen([*command, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True)

    def story(self) -> list[str]:
        path = self.directory / "story"
        return path.read_text().splitlines() if path.exists() else []

    def await_story(self, *lines: str) -> None:
        assert wait_until(lambda: set(lines) <= set(self.story()), 20, interval_seconds=0.02), self.story()

    def pids(self) -> dict[str, int]:
        # The first child may speak before the last one is forked and the list written.
        assert wait_until((self.directory / "processes.json").exists, 10)
        listed: dict[str, int] = json.loads((self.directory / "processes.json").read_text())
        return listed

    def await_new_pid(self, name: str, old: int) -> int:
        assert wait_until(lambda: self.pids().get(name, old) != old, 10, interval_seconds=0.02), self.pids()
        return self.pids()[name]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def app(state_dir: Path) -> Iterator[Callable[..., App]]:
    running: list[App] = []

    def launch(mode: str, *arguments: object) -> App:
        running.append(App(state_dir, mode, *arguments))
        return running[-1]

    yield launch
    for one in running:
        if one.process.poll() is None:
            kill_all(with_descendants(one.process.pid))
        one.process.communicate(timeout=10)


def test_a_crashed_child_is_restarted_at_once_and_the_list_of_processes_says_so(app: Callable[..., App]) -> None:
    up = app("stages")
    up.await_story("edge up", "worker-1 up", "worker-2 up", "relay up")
    before = up.pids()
    assert before["supervisor"] == up.process.pid
    assert stat.S_IMODE((up.directory / "processes.json").stat().st_mode) == 0o600
    os.kill(before["worker-1"], signal.SIGKILL)
    killed_at = time.monotonic()
    new = up.await_new_pid("worker-1", before["worker-1"])
    assert time.monotonic() - killed_at < 3
    assert is_running(new)
    assert {**up.pids(), "worker-1": before["worker-1"]} == before
    assert up.stop() == 0


def test_a_child_that_keeps_crashing_is_tried_ever_more_rarely_and_disturbs_nobody(app: Callable[..., App]) -> None:
    up = app("crashing")
    up.await_story("good up")
    assert wait_until(lambda: len(up.story()) >= 6, 10)
    moments = [float(line.split()[1]) for line in up.story() if line.startswith("crash")]
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert gaps[0] < 0.2
    assert gaps[1] >= 0.2
    assert gaps[2] >= 0.4
    assert gaps[3] >= 0.8
    good = up.pids()["good"]
    assert is_running(good)
    assert up.stop() == 0
    assert up.story().count("good up") == 1
    assert "RuntimeError: crashes at once" in (up.directory / "logs" / "bad.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_services_stop_stage_by_stage_each_after_the_one_before_has_drained(
    app: Callable[..., App], number: signal.Signals
) -> None:
    up = app("stages")
    up.await_story("edge up", "worker-1 up", "worker-2 up", "relay up")
    pids = up.pids().values()
    assert up.stop(number) == 0
    ending = [line for line in up.story() if not line.endswith("up")]
    assert ending[:2] == ["edge draining", "edge down"]
    assert sorted(ending[2:4]) == ["worker-1 draining", "worker-2 draining"]
    assert sorted(ending[4:6]) == ["worker-1 down", "worker-2 down"]
    assert ending[6:] == ["relay draining", "relay down"]
    assert all_gone(pids, within_seconds=1)
    assert not (up.directory / "processes.json").exists()


def test_a_service_that_does_not_drain_in_time_is_killed_and_the_exit_code_says_so(app: Callable[..., App]) -> None:
    up = app("stubborn", 1.0)
    up.await_story("edge up", "worker up")
    pids = up.pids().values()
    began = time.monotonic()
    assert up.stop() == 1
    assert 1.0 <= time.monotonic() - began < 4.0
    # The stubborn one must not have eaten the time of the stage after it.
    assert "worker down" in up.story()
    assert all_gone(pids, within_seconds=1)


def test_asking_twice_ends_the_draining(app: Callable[..., App]) -> None:
    up = app("stubborn", 60.0)
    up.await_story("edge up", "worker up")
    up.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert up.process.poll() is None
    began = time.monotonic()
    assert up.stop(signal.SIGINT) == 1
    assert time.monotonic() - began < 20  # and not 60


def test_what_a_killed_child_leaves_in_its_group_is_killed_too(app: Callable[..., App]) -> None:
    up = app("littering")
    assert wait_until(lambda: bool(up.story()), 10)
    litter = int(up.story()[0].split()[1])
    os.kill(up.pids()["litterer"], signal.SIGKILL)
    assert all_gone([litter], within_seconds=2)
    assert up.stop() == 0


def test_a_killed_supervisor_leaves_no_service_no_database_and_no_broker_behind(
    app: Callable[..., App], data_dir: Path
) -> None:
    assert data_dir.is_dir()
    up = app("servers")
    up.await_story("edge up", "worker up")
    everything = with_descendants(up.process.pid)
    assert len(everything) >= 8
    up.process.kill()
    assert all_gone(everything[1:], within_seconds=5)


def test_a_killed_database_and_a_killed_broker_come_back_on_their_ports_with_topics(
    app: Callable[..., App], data_dir: Path
) -> None:
    assert data_dir.is_dir()
    up = app("servers")
    up.await_story("edge up", "worker up")
    before = up.pids()
    servers = next(line.split()[-1] for line in up.story() if line.startswith("broker at"))
    assert not any(line.startswith("topics") for line in up.story())
    os.kill(before["postgres"], signal.SIGKILL)
    os.kill(before["broker"], signal.SIGKILL)
    up.await_new_pid("postgres", before["postgres"])
    up.await_new_pid("broker", before["broker"])
    up.await_story(f"topics at {servers}")
    host, _, port = servers.rpartition(":")
    assert answers_kafka(host, int(port))
    after = up.pids()
    assert (after["edge"], after["worker"]) == (before["edge"], before["worker"])
    assert up.stop() == 0
    assert up.process.stdout is not None
    restarts = json.loads(up.process.stdout.read().splitlines()[-1])
    assert restarts == {"edge": 0, "worker": 0, "postgres": 1, "broker": 1}
    assert all_gone(after.values(), within_seconds=1)


def test_five_services_whose_modules_are_loaded_start_in_a_fraction_of_that_time(state_dir: Path) -> None:
    script = """
        import time
        begun = time.monotonic()
        import faststream.kafka, fastapi, sqlalchemy.ext.asyncio, asyncpg
        loading = time.monotonic() - begun
        import pathlib, sys
        from codeagent.embedded.processes import ChildSpec, ProcessSupervisor

        directory = pathlib.Path(sys.argv[1])
        def child(name):
            def run():
                begun = directory / f"{name}.begun"
                begun.write_text(str(time.monotonic()))
                begun.rename(directory / name)
                time.sleep(60)
            return run
        names = ["edge", "agent", "provider", "sandbox", "relay"]
        children = [ChildSpec(name, child(name)) for name in names]
        supervisor = ProcessSupervisor(children, data_dir=directory, drain_seconds=2)
        begun = time.monotonic()
        supervisor.run(until=lambda: all((directory / name).exists() for name in names))
        print((max(float((directory / name).read_text()) for name in names) - begun) / loading)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(state_dir)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) < 0.5, "of the time that loading the modules takes"


def test_a_child_never_runs_its_parents_code_whatever_its_target_does() -> None:
    outcomes: list[tuple[Callable[[], int | None], int]] = [
        (lambda: None, 0),
        (lambda: 3, 3),
        (lambda: sys.exit(4), 4),
        (lambda: sys.exit("with words"), 1),
        (lambda: int("no number"), 1),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), -signal.SIGKILL),
    ]
    us = os.getpid()
    for target, expected in outcomes:
        assert run_forked(target, 10) == expected
        assert os.getpid() == us


def test_a_child_has_a_group_of_its_own_default_signals_and_no_terminal(state_dir: Path) -> None:
    answer = state_dir / "answer"

    def target() -> None:
        handlers = [signal.getsignal(number) == signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGINT)]
        blocked = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        answer.write_text(json.dumps([os.getpgid(0) == os.getpid(), handlers, blocked, os.read(0, 1).decode()]))

    assert run_forked(target, 10) == 0
    assert json.loads(answer.read_text()) == [True, [True, True], [], ""]


def test_a_forked_task_past_its_time_limit_is_killed() -> None:
    began = time.monotonic()
    assert run_forked(lambda: time.sleep(60), 0.2) == -signal.SIGKILL
    assert time.monotonic() - began < 2
    assert run_forked(lambda: time.sleep(60), 60, abort=lambda: True) == -signal.SIGKILL


def test_a_child_dies_with_the_process_that_forked_it(state_dir: Path) -> None:
    pid_file = state_dir / "pid"

    def parent() -> None:
        pid_file.write_text(str(fork_child(lambda: time.sleep(60))))
        os.kill(os.getpid(), signal.SIGKILL)

    assert run_forked(parent, 10) == -signal.SIGKILL
    assert all_gone([int(pid_file.read_text())], within_seconds=2)


def test_output_of_a_child_goes_to_its_log(state_dir: Path) -> None:
    def target() -> None:
        os.write(1, b"to stdout\n")
        os.write(2, b"to stderr\n")

    log = state_dir / "service.log"
    assert run_forked(target, 10, log_path=log) == 0
    assert run_forked(target, 10, log_path=log) == 0
    assert log.read_text().splitlines() == ["to stdout", "to stderr"] * 2
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")
def test_orphans_that_a_container_leaves_to_us_are_collected_and_our_own_children_are_not() -> None:
    def first_process() -> int:
        adopt_orphans = 36
        ctypes.CDLL(None).prctl(adopt_orphans, 1, 0, 0, 0)
        own = fork_child(lambda: time.sleep(60))
        read_end, write_end = os.pipe()

        def leave_an_orphan() -> None:
            os.write(write_end, b"%d" % fork_child(lambda: 0))

        if run_forked(leave_an_orphan, 10) != 0:
            return 1
        orphan = int(os.read(read_end, 20))
        ended = wait_until(lambda: not is_running(orphan), 5)
        processes._reap_strangers({own})
        return 0 if ended and not Path(f"/proc/{orphan}").exists() and is_running(own) else 2

    assert run_forked(first_process, 20) == 0


def test_names_must_be_unique(state_dir: Path) -> None:
    with pytest.raises(ValueError, match="unique"):
        ProcessSupervisor([ChildSpec("edge", lambda: 0), ChildSpec("edge", lambda: 0)], data_dir=state_dir)
