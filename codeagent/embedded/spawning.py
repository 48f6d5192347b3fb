"""Starts server programs that cannot outlive the process that started them."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from codeagent.embedded.accounts import Account
from codeagent.embedded.log_files import open_log
from codeagent.errors import Rejected, Unavailable

Abort = Callable[[], bool]

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
# An orphan gets another parent at once, while a dead parent keeps its number until somebody collects it.
_GUARD = """
while [ "$(ps -o ppid= -p "$2" | tr -d ' ')" = "$1" ]; do sleep 1; done
kill -s "$3" "$2" 2>/dev/null
"""


def never() -> bool:
    """The default `Abort`: nobody asks to give up."""
    return False


def die_with_parent(parent_pid: int, death_signal: signal.Signals) -> None:
    """Asks the kernel to send `death_signal` to the calling process when its parent ends; Linux only.

    Must run after any change of user id, which clears the request, and exits at once if the parent is already gone.
    """
    _libc().prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


class Program:
    """One running server program: a session of its own, output in a log file, gone when we are gone."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        account: Account | None,
        log_path: Path,
        death_signal: signal.Signals,
        environment: Mapping[str, str] | None = None,
        use_guard: bool = sys.platform != "linux",
    ) -> None:
        self._guard: subprocess.Popen[bytes] | None = None
        log = open_log(log_path)
        try:
            self._process = _popen(arguments, account, log, environment or {}, None if use_guard else death_signal)
        finally:
            os.close(log)
        if use_guard:
            name = death_signal.name.removeprefix("SIG")
            command = ["/bin/sh", "-c", _GUARD, "guard", str(os.getpid()), str(self.pid), name]
            self._guard = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs; afterwards its exit code, or minus the signal that ended it."""
        status = self._process.poll()
        if status is not None:
            self._dismiss_guard()
        return status

    def wait(self, timeout_seconds: float) -> bool:
        """Whether it ended within the time."""
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return False
        self._dismiss_guard()
        return True

    def send(self, number: signal.Signals) -> None:
        """Signals the program; harmless when it has ended."""
        self._process.send_signal(number)

    def _dismiss_guard(self) -> None:
        if self._guard is not None:
            self._guard.kill()
            self._guard.wait()
            self._guard = None


def run_tool(arguments: Sequence[str], account: Account | None, *, stdin: str = "", timeout_seconds: float = 60) -> str:
    """Runs a short command to its end and returns its output. Raises Unavailable with the last line on failure."""
    process = _popen(arguments, account, subprocess.PIPE, {}, signal.SIGKILL if sys.platform == "linux" else None)
    with process:
        try:
            output, _ = process.communicate(stdin.encode(), timeout_seconds)
        except BaseException:
            process.kill()
            raise
    text = output.decode("utf-8", "replace").strip()
    if process.returncode != 0:
        reason = next((line for line in reversed(text.splitlines()) if "rror" in line or "FATAL" in line), "")
        raise Unavailable(
            f"{Path(arguments[0]).name} ended with status {process.returncode}: {reason or text[-300:]}",
            code="embedded_tool_failed",
        )
    return text


def wait_until(
    condition: Callable[[], bool], timeout_seconds: float, abort: Abort = never, interval_seconds: float = 0.004
) -> bool:
    """Polls `condition`; False on time-out or when `abort` says so."""
    give_up_at = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() >= give_up_at or abort():
            return False
        time.sleep(interval_seconds)
    return True


@functools.cache
def _libc() -> ctypes.CDLL:
    """Loaded once, before any fork: the loader's locks are not safe to take between fork and exec."""
    return ctypes.CDLL(None, use_errno=True)


def _popen(
    arguments: Sequence[str],
    account: Account | None,
    output: int,
    environment: Mapping[str, str],
    death_signal: signal.Signals | None,
) -> subprocess.Popen[bytes]:
    parent_pid, libc = os.getpid(), _libc()

    def prepare() -> None:
        if death_signal is not None:
            die_with_parent(parent_pid, death_signal)
            libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)

    try:
        return subprocess.Popen(
            list(arguments),
            stdin=subprocess.PIPE if output == subprocess.PIPE else subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", "HOME": "/", **environment},
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            umask=0o077,
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509  # after the change of user id, before exec; takes no locks
        )
    except PermissionError as error:
        who = f" as user id {account.uid}" if account else ""
        cure = " (root needs CAP_SETUID and CAP_SETGID, or start CodeAgent as a normal user)" if account else ""
        raise Rejected(f"cannot run {arguments[0]}{who}: {error.strerror}{cure}", code="cannot_run_server") from error
    except OSError as error:
        raise Unavailable(f"cannot run {arguments[0]}: {error.strerror}", code="cannot_run_server") from error
