"""What a service of root's keeps when it becomes somebody else: nothing, or the right to read."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from codeagent.embedded.accounts import Account, first_unreadable
from codeagent.embedded.children import fork_child
from codeagent.embedded.demotion import Demotion
from tests.conftest import let_everyone_pass

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give root up")
ACCOUNT = Account(60_919, 60_919)
_PR_GET_PDEATHSIG = 2


def told(tell: Callable[[], str], place: Path, *, reads_all: bool) -> str:
    """What a demoted child says."""

    def write() -> None:
        os.write(1, tell().encode())

    log = place / "log"
    pid = fork_child(write, log, demotion=Demotion(ACCOUNT, reads_all=reads_all))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, log.read_text()
    return log.read_text()


def status() -> dict[str, str]:
    lines = (line.partition(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}


@pytest.mark.parametrize(("reads_all", "capabilities"), [(False, 0), (True, 1 << 2)])
def test_nothing_is_left_of_root_but_what_was_asked_for(tmp_path: Path, reads_all: bool, capabilities: int) -> None:
    def tell() -> str:
        now = status()
        who = f"{os.getresuid()} {os.getresgid()} {os.getgroups()} {os.environ['HOME']}"
        rights = [int(now[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")]
        child = subprocess.run(["/bin/grep", "CapEff", "/proc/self/status"], capture_output=True, text=True, check=True)
        return f"{who}\n{rights} {now['NoNewPrivs']}\n{int(child.stdout.split()[1], 16)}\n"

    groups = os.getgroups()
    os.setgroups([*groups, 60_918])
    try:
        user, rights, childs = told(tell, tmp_path, reads_all=reads_all).splitlines()
    finally:
        os.setgroups(groups)
    assert user == f"{(60_919,) * 3} {(60_919,) * 3} [] /"
    assert rights == f"{[capabilities, capabilities, 0, 0]} 1"
    assert childs == "0"


@pytest.mark.parametrize("reads_all", [False, True])
def test_files_of_roots_are_closed_to_it_or_can_be_read_alone(tmp_path: Path, reads_all: bool) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secret").chmod(0o600)

    def attempt(action: Callable[[], object]) -> str:
        try:
            action()
        except PermissionError:
            return "refused"
        return "done"

    def tell() -> str:
        tried = (
            (tmp_path / "secret").read_text,
            lambda: (tmp_path / "secret").write_text("x"),
            lambda: os.setuid(0),
            lambda: os.kill(os.getppid(), 0),
        )
        return " ".join(map(attempt, tried))

    may_read = "done" if reads_all else "refused"
    assert told(tell, tmp_path, reads_all=reads_all).split() == [may_read, "refused", "refused", "refused"]


def test_it_ends_with_its_parent_all_the_same(tmp_path: Path) -> None:
    """A change of user clears what the kernel was asked to do when the parent dies."""

    def tell() -> str:
        number = ctypes.c_int()
        ctypes.CDLL(None).prctl(_PR_GET_PDEATHSIG, ctypes.byref(number))
        return signal.Signals(number.value).name

    assert told(tell, tmp_path, reads_all=False) == "SIGKILL"


def test_the_first_thing_that_is_closed_is_named(tmp_path: Path) -> None:
    let_everyone_pass(tmp_path)
    open_to_all, closed, hidden = tmp_path / "open", tmp_path / "closed", tmp_path / "folder" / "hidden"
    hidden.parent.mkdir(mode=0o700)
    for path, mode in ((open_to_all, 0o644), (closed, 0o600), (hidden, 0o644)):
        path.touch()
        path.chmod(mode)
    assert first_unreadable([open_to_all, tmp_path / "missing"], ACCOUNT) is None
    assert first_unreadable([open_to_all, closed], ACCOUNT) == closed
    assert first_unreadable([hidden], ACCOUNT) == hidden.parent
    os.chown(closed, *(ACCOUNT.uid, ACCOUNT.gid))
    assert first_unreadable([closed], ACCOUNT) is None
