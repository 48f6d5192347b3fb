"""Forks a Python service off a process that has already imported everything it needs."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import NoReturn

from codeagent.embedded.demotion import Demotion
from codeagent.embedded.log_files import open_log
from codeagent.embedded.spawning import Abort, die_with_parent, never, wait_until

_FAILED = 1
_OURS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)


def fork_child(
    target: Callable[[], int | None],
    log_path: Path | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
    demotion: Demotion | None = None,
) -> int:
    """Runs `target` in a child of its own process group and returns the child's process id.

    The child ends with what `target` returns (None: 0), with 1 and a traceback after an exception, and by
    `death_signal` when this process ends. Its output goes to `log_path`, or where ours goes. This process must have
    a single thread: the child gets a copy of every lock, but only of the thread that forks. With a `demotion` the
    child gives up root before it runs anything.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent_pid = os.getpid()
    # Blocked over the fork: a signal must not run the parent's handlers in the child.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)
    try:
        pid = os.fork()
        if pid == 0:
            _run(target, parent_pid, log_path, death_signal, demotion)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    # Both sides do it, because either may be first to need it.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.setpgid(pid, pid)
    return pid


def run_forked(
    target: Callable[[], int | None],
    timeout_seconds: float,
    *,
    log_path: Path | None = None,
    abort: Abort = never,
) -> int:
    """Runs `target` in a child to its end: for a task that needs an event loop, which a forking process must not have.

    Returns its exit code, or minus the signal that ended it. Past the time limit, or once `abort` says so, it is
    killed.
    """
    pid = fork_child(target, log_path)
    status: int | None = None

    def ended() -> bool:
        nonlocal status
        status = collect(pid)
        return status is not None

    try:
        wait_until(ended, timeout_seconds, abort)
    finally:
        if status is None:
            kill_group(pid)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status


def collect(pid: int) -> int | None:
    """The exit status of a child that has ended, or None; kills what the child left in its group before it is reaped.

    Until then its number cannot be given to anybody else, so nobody else is hit.
    """
    if hasattr(os, "waitid"):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        kill_group(pid)
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def kill_group(pid: int) -> None:
    """Kills a child and whatever it left in its process group. The child must not have been reaped yet."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _run(
    target: Callable[[], int | None],
    parent_pid: int,
    log_path: Path | None,
    death_signal: signal.Signals,
    demotion: Demotion | None,
) -> NoReturn:
    """Everything the child does. It never returns into the parent's code: no frame above this one runs again."""
    code = _FAILED
    try:
        _become_service(parent_pid, log_path, death_signal, demotion)
        code = target() or 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else _FAILED if stop.code else 0
        if code == _FAILED and isinstance(stop.code, str):
            sys.stderr.write(f"{stop.code}\n")
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code & 0xFF)


def _become_service(
    parent_pid: int, log_path: Path | None, death_signal: signal.Signals, demotion: Demotion | None
) -> None:
    os.setpgid(0, 0)
    log = open_log(log_path) if log_path is not None else None
    if demotion is not None:
        demotion.apply()
    if sys.platform == "linux":
        die_with_parent(parent_pid, death_signal)
    else:
        Thread(target=_watch_parent, args=(parent_pid, death_signal), daemon=True).start()
    signal.set_wakeup_fd(-1)
    for number in _OURS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    if log is not None:
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)


def _watch_parent(parent_pid: int, death_signal: signal.Signals) -> None:
    while os.getppid() == parent_pid:
        time.sleep(1.0)
    os.kill(os.getpid(), death_signal)
