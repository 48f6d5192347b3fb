"""What is watched from outside is seen when it happens: each trace is made here by hand, without any sandbox."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from codeagent.messages.events import ExecEnded
from codeagent.messages.values import Outcome
from codeagent.sandboxes.cgroup_layout import find_trees
from codeagent.sandboxes.machine import group_name
from tests.integration.sandboxes.support import require_root_and_bwrap
from tests.sandbox import health, judge
from tests.sandbox.attack import PRELUDE, Step, attacks
from tests.sandbox.bait import MARK, Bait
from tests.sandbox.judge import Seen, Traces

UID = 231_009


@pytest.fixture(autouse=True)
def machine() -> None:
    require_root_and_bwrap()


@pytest.fixture
def watched(bait: Bait, tmp_path: Path) -> Traces:
    (tmp_path / "workspaces").mkdir()
    bait.keep_victims({"slot": UID})
    return Traces(tmp_path, bait, (UID,), {})


@contextmanager
def a_process(_: Traces) -> Iterator[None]:
    words = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "sleep", "60")
    with subprocess.Popen(words) as process:
        while b"setpriv" in Path(f"/proc/{process.pid}/cmdline").read_bytes():
            threading.Event().wait(0.01)
        yield
        process.kill()


@contextmanager
def a_mount(_: Traces, source: bytes = MARK.encode()) -> Iterator[None]:
    place = Path("/tmp", "codeagent-mount-of-a-test")
    place.mkdir()
    libc = ctypes.CDLL(None)
    try:
        assert libc.mount(source, bytes(place), b"tmpfs", 0, None) == 0
        yield
        libc.umount2(bytes(place), 2)
    finally:
        place.rmdir()


@contextmanager
def a_group(traces: Traces) -> Iterator[None]:
    parent = find_trees().below(group_name(traces.state_dir)).pids
    (parent / "left").mkdir(parents=True)
    yield
    (parent / "left").rmdir()
    parent.rmdir()


@contextmanager
def a_workspace(traces: Traces) -> Iterator[None]:
    (traces.state_dir / "workspaces" / "w").mkdir()
    yield
    (traces.state_dir / "workspaces" / "w").rmdir()


@pytest.mark.parametrize("leave", [a_process, a_mount, a_group, a_workspace])
def test_what_is_left_is_seen(watched: Traces, leave: Callable[[Traces], Iterator[None]]) -> None:
    before = watched.left()
    with leave(watched):  # type: ignore[attr-defined]
        assert len(watched.left() - before) == 1
    assert watched.left() - before == set()


def reached(family: int, address: object) -> Callable[[Bait], None]:
    def reach(bait: Bait) -> None:
        with socket.socket(family) as visitor:
            visitor.connect(address(bait))  # type: ignore[operator]
            assert visitor.recv(100) == bait.secret.encode()

    return reach


def asked_udp(bait: Bait) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as visitor:
        visitor.sendto(b"x", ("127.0.0.1", bait.facts["udp_port"]))
        assert visitor.recv(100) == bait.secret.encode()


HARM: dict[str, Callable[[Bait], object]] = {
    "a tcp listener": reached(socket.AF_INET, lambda bait: ("127.0.0.1", bait.facts["tcp_port"])),
    "a unix listener": reached(socket.AF_UNIX, lambda bait: bait.facts["unix_path"]),
    "a abstract listener": reached(socket.AF_UNIX, lambda bait: "\0" + bait.facts["abstract"]),
    "a udp listener": asked_udp,
    "the process of the slot died": lambda bait: os.kill(bait.facts["slot_pid"], 9),
    "open_file was changed": lambda bait: Path(bait.facts["open_file"]).write_text("x"),
    "was made on the machine": lambda bait: Path("/var/tmp", MARK).touch(),
    "/ran was made": lambda bait: Path(bait.facts["markers"], "ran").touch(),
}


@pytest.mark.parametrize("what", HARM)
def test_harm_is_seen_once(watched: Traces, bait: Bait, what: str) -> None:
    assert bait.harm() == []
    HARM[what](bait)
    if what.startswith("the process"):
        os.waitid(os.P_PID, bait.facts["slot_pid"], os.WEXITED | os.WNOWAIT)
    [told] = bait.harm()
    assert what in told
    bait.keep_victims({"slot": UID})
    assert bait.harm() == []


ENDED = ExecEnded(
    effect_id=UUID(int=1), run_id="run_x", attempt=1, outcome=Outcome.DONE, operation="tool", reason="ok", driver="bwrap",
    level=2, duration_seconds=1.0, wall_seconds=1.0, cpu_seconds=0.9, limits_hit=("pids",),
)  # fmt: skip


@pytest.mark.parametrize(
    ("step", "output", "seconds", "told"),
    [
        (Step(), b"quiet\n", 1.0, None),
        (Step(), b"x\nESCAPED by y\n", 1.0, "ESCAPED by y"),
        (Step(), b"it says canary-0", 1.0, "has the secret"),
        (Step(reason=("timeout", "oom")), b"", 1.0, "ended as ok, not timeout or oom"),
        (Step(limits_hit=("pids", "memory")), b"", 1.0, "limit memory was not hit"),
        (Step(prints="done"), b"", 1.0, "did not print 'done'"),
        (Step(cpu_share=0.5), b"", 1.0, "used 0.9 s of cores in 1.0 s"),
        (Step(wall_below=5.0), b"", 6.0, "held its caller for 6.0 s"),
    ],
)
def test_a_step_that_ends_otherwise_is_told(step: Step, output: bytes, seconds: float, told: str | None) -> None:
    found = judge.misses(step, Seen(ENDED, output, seconds), "canary-0")
    assert (found == []) if told is None else (len(found) == 1 and told in found[0])


def test_a_setting_is_changed_unless_what_covers_it_swallows_all(tmp_path: Path) -> None:
    (tmp_path / "bait.json").write_text('{"own_kernel": false, "mark": ""}')
    (tmp_path / "attacking.py").write_text(PRELUDE.read_text().replace("/workspace", str(tmp_path)))
    setting = tmp_path / "setting"
    setting.touch()
    program = (
        f"from attacking import *\nfor path in ('/dev/null', {str(setting)!r}, '/proc/version'): change(path, 'x')"
    )
    answer = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert answer.stdout == f"ESCAPED wrote {setting}\n"
    assert setting.read_text() == "x"


def test_a_machine_that_became_worse_is_seen() -> None:
    before = health.measured()
    worse = replace(before, tasks=before.tasks + 500, memory_available=0, clock_offset=before.clock_offset + 100)
    assert len(worse.harmed_since(before)) == 3
    assert before.harmed_since(before) == []


def test_every_attack_says_what_it_is_and_there_are_many() -> None:
    found = attacks(own_kernel=False)
    assert len(found) >= 100
    assert found.keys() == attacks(own_kernel=True).keys()
    assert len({attack.category for attack in found.values()}) >= 7
    assert all(attack.says and attack.steps for attack in found.values())
