"""`codeagent sandbox exec` with attacks that are in no suite: whatever they do, and however it ends, nothing stays.

On the drivers that are chosen where none is named; what a container engine keeps is for its own tests.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from codeagent.sandboxes import mounts
from codeagent.sandboxes.cgroup_layout import find_trees
from codeagent.sandboxes.machine import group_name
from tests.sandbox import drivers
from tests.sandbox.test_attacks import WHOLE

SWARM = """
import ctypes, os, signal, socket, sys, time
libc = ctypes.CDLL(None)
for number in range(24):
    if os.fork() == 0:
        os.setsid()
        for each in range(1, 60):
            try: signal.signal(each, signal.SIG_IGN)
            except (OSError, ValueError): pass
        libc.prctl(15, b"kworker/0:1", 0, 0, 0)
        if number % 2 and os.fork():
            os._exit(0)
        if number % 3 == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
        if number % 5 == 0:
            os.execv("/bin/bash", ["bwrap", "-c", "exec -a '[kthreadd]' sleep 600", sys.argv[1]])
        for handle in range(3): os.close(handle)
        time.sleep(600)
os.makedirs("/tmp/%s/a" % sys.argv[1]); os.mkfifo("/tmp/%s/a/p" % sys.argv[1])
open("/dev/shm/" + sys.argv[1], "wb").write(b"x" * 1000000)
os.makedirs("locked/in"); os.chmod("locked/in", 0); os.chmod("locked", 0)
socket.socket(socket.AF_UNIX).bind("socket")
print("began", flush=True)
"""
STORM = """
import os, signal, sys, threading, time
def again():
    while True:
        if os.fork() == 0:
            os.setsid(); os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", sys.argv[1]])
        time.sleep(0.02)
threading.Thread(target=again, daemon=True).start()
print("began", flush=True)
time.sleep(600)
"""
CRASH = """
import ctypes, mmap, os, sys
for _ in range(8):
    if os.fork() == 0:
        os.dup2(os.memfd_create(sys.argv[1]), 9); held = mmap.mmap(9, 0 or 4096) if os.ftruncate(9, 4096) is None else 0
        while True: os.sched_yield()
print("began", flush=True)
ctypes.string_at(0)
"""
LETTERS = """
import os, sys
for number in range(300):
    os.makedirs(os.path.join("\\n%d" % number, "\\x1b[2J" * 30, "x" * 250))
    os.symlink("/" * 40 + "proc/self/fd/0", "l%d" % number)
print("began", flush=True)
os.kill(os.getppid(), 9); os.kill(1, 9); os.abort()
"""
ATTACKS = {
    "swarm": (SWARM, "ok"),
    "storm": (STORM, "timeout"),
    "crash": (CRASH, "killed"),
    "letters": (LETTERS, "killed"),
}


class Machine:
    """What of this machine can only be a command's: by a word that all of it carries, and by where it is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.word = f"novel{secrets.token_hex(8)}"

    def left(self) -> list[str]:
        """Processes, mounts, groups and files that are there now."""
        found = [f"mount {path}" for path in mounts.mounted_below(self.folder)]
        found += [f"file {path}" for path in self.folder.iterdir()]
        found += [
            f"file {path}" for place in ("/tmp", "/dev/shm", "/var/tmp") for path in Path(place).glob(f"*{self.word}*")
        ]
        for path in self.folder.iterdir():
            trees = find_trees().below(group_name(path))
            found += [f"group {directory}" for directory in trees.directories if directory.exists()]
        return found + [f"process {pid}" for pid in self.processes()]

    def processes(self) -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes()
                if entry.name != str(os.getpid()) and (self.word.encode() in words or bytes(self.folder) in words):
                    found.append(int(entry.name))
        return found

    def command(self, driver: str, program: str, *options: str) -> list[str]:
        cli = [sys.executable, "-c", "from codeagent.cli.main import app; app()", "sandbox", "exec"]
        return [*cli, "--driver", driver, *options, "--", "python3", "-c", program, self.word]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "TMPDIR": str(self.folder)}


AUTOMATIC = [name for name in drivers.wanted() if drivers.OFFERED[name].automatic]


@pytest.fixture(params=AUTOMATIC if WHOLE else AUTOMATIC[:1])
def driver(request: pytest.FixtureRequest) -> str:
    return drivers.required(request.param).name


@pytest.fixture
def machine() -> Iterator[Machine]:
    folder = Path(tempfile.mkdtemp(prefix="codeagent-novel-"))
    folder.chmod(0o711)
    machine = Machine(folder)
    yield machine
    for point in mounts.mounted_below(folder):
        mounts.unmount(point)
    shutil.rmtree(folder)


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    """Whether it comes to hold in that time."""
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


@pytest.mark.parametrize("name", ATTACKS if WHOLE else ["swarm"])
def test_an_attack_that_nobody_has_thought_of_leaves_nothing(driver: str, machine: Machine, name: str) -> None:
    program, reason = ATTACKS[name]
    words = machine.command(driver, program, "--timeout", "3", "--json")
    done = subprocess.run(words, env=machine.environment, capture_output=True, text=True, check=False)
    record = json.loads(done.stdout.splitlines()[-1])
    assert (record["reason"], record["stdout"]) == (reason, "began\n"), done.stderr
    assert machine.left() == []


def test_the_command_killed_in_the_middle_leaves_no_process_and_the_next_one_removes_the_rest(
    driver: str, machine: Machine
) -> None:
    """The kernel ends every process of the sandbox with the one that started it. Mounts, groups and the directory have
    nobody left who could remove them: the next command does."""
    words = machine.command(driver, STORM, "--timeout", "60")
    with subprocess.Popen(words, env=machine.environment, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        try:
            assert running.stdout.readline() == b"began\n"
            assert within(10, lambda: len(machine.processes()) > 2)
        finally:
            running.send_signal(signal.SIGKILL)
    assert within(10, lambda: not machine.processes())
    assert {line.split()[0] for line in machine.left()} == {"mount", "file", "group"}
    groups = [line for line in machine.left() if line.startswith("group")]
    after = machine.command(driver, "print('began')", "--json")
    done = subprocess.run(after, env=machine.environment, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout.splitlines()[-1])["stdout"] == "began\n", done.stderr
    assert machine.left() == []
    assert not [line for line in groups if Path(line.split()[1]).exists()]
