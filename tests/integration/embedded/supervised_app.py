"""A small `codeagent up` for the tests: what it does is told by its first argument, its state lives in the second."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from codeagent.embedded.broker import EmbeddedBroker
from codeagent.embedded.children import run_forked
from codeagent.embedded.postgres import EmbeddedPostgres
from codeagent.embedded.processes import ChildSpec, ProcessSupervisor, WatchedServer


def note(directory: Path, line: str) -> None:
    """One line in the story of the run, whoever writes it; small appends do not mix."""
    with (directory / "story").open("a") as story:
        story.write(f"{line}\n")


def service(directory: Path, name: str, stop_seconds: float = 0.0) -> Callable[[], int]:
    """A service that notes its beginning and its end, and takes `stop_seconds` to drain."""

    def run() -> int:
        stopping: list[int] = []

        def stop(number: int, _frame: FrameType | None) -> None:
            stopping.append(number)

        signal.signal(signal.SIGTERM, stop)
        note(directory, f"{name} up")
        while not stopping:
            time.sleep(0.01)
        note(directory, f"{name} draining")
        time.sleep(stop_seconds)
        note(directory, f"{name} down")
        return 0

    return run


def stubborn(directory: Path, name: str) -> Callable[[], int]:
    def run() -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note(directory, f"{name} up")
        time.sleep(600)
        return 0

    return run


def crashing(directory: Path) -> Callable[[], int]:
    def run() -> int:
        note(directory, f"crash {time.monotonic()}")
        raise RuntimeError("crashes at once")

    return run


def littering(directory: Path) -> Callable[[], int]:
    """Leaves a program in its process group when it is killed."""

    def run() -> int:
        litter = subprocess.Popen(["sleep", "600"])
        note(directory, f"litter {litter.pid}")
        time.sleep(600)
        return 0

    return run


def _build(mode: str, directory: Path) -> ProcessSupervisor:
    if mode == "stages":
        children = [
            ChildSpec("relay", service(directory, "relay"), stop_stage=2),
            ChildSpec("worker-1", service(directory, "worker-1", 0.2), stop_stage=1),
            ChildSpec("worker-2", service(directory, "worker-2", 0.2), stop_stage=1),
            ChildSpec("edge", service(directory, "edge", 0.2), stop_stage=0),
        ]
        return ProcessSupervisor(children, data_dir=directory, drain_seconds=10)
    if mode == "stubborn":
        children = [
            ChildSpec("edge", stubborn(directory, "edge"), stop_stage=0),
            ChildSpec("worker", service(directory, "worker"), stop_stage=1),
        ]
        return ProcessSupervisor(children, data_dir=directory, drain_seconds=float(sys.argv[3]))
    if mode == "crashing":
        children = [ChildSpec("bad", crashing(directory)), ChildSpec("good", service(directory, "good"))]
        return ProcessSupervisor(children, data_dir=directory, drain_seconds=2, log_to_files=True)
    if mode == "littering":
        return ProcessSupervisor([ChildSpec("litterer", littering(directory))], data_dir=directory, drain_seconds=2)
    return _with_servers(directory)


def _with_servers(directory: Path) -> ProcessSupervisor:
    postgres = EmbeddedPostgres(directory / "postgres")
    broker = EmbeddedBroker(directory / "broker")
    note(directory, f"postgres at {postgres.start().port}")
    note(directory, f"broker at {broker.start()}")

    def create_topics() -> None:
        def in_child() -> int:
            note(directory, f"topics at {broker.bootstrap_servers}")
            return 0

        if run_forked(in_child, 10) != 0:
            raise RuntimeError("topics were not created")

    return ProcessSupervisor(
        [ChildSpec(name, service(directory, name)) for name in ("edge", "worker")],
        data_dir=directory,
        servers=[WatchedServer("postgres", postgres), WatchedServer("broker", broker, create_topics)],
        drain_seconds=5,
    )


def main() -> int:
    supervisor = _build(sys.argv[1], Path(sys.argv[2]))
    code = supervisor.run()
    sys.stdout.write(json.dumps(supervisor.restarts()))
    return code


if __name__ == "__main__":
    sys.exit(main())
