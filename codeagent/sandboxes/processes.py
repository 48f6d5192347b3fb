"""Starts a sandbox program, and proves that nothing of it is left.

The processes are started from the event loop's own thread without code between fork and exec, and watched by pidfd: no
child watcher, no thread and no signal handler is involved, so any asyncio event loop will do.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import resource
import shlex
import signal
import subprocess  # nosec: the one place that starts programs, always with an argument list
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from codeagent.sandboxes.protocol import Limits, Rusage, SandboxFailure

_PR_SET_CHILD_SUBREAPER = 36
_BARRIER_SECONDS = 10.0
_REAP_SECONDS = 0.001
_REPORT_BYTES = 64 << 10
JOIN_FAILED = 125


@lru_cache(maxsize=1)
def become_subreaper() -> None:
    """From now on this process, not the machine's first one, inherits and reaps what a sandbox program leaves."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def prelude(join: Sequence[Path], slot_uid: int | None, limits: Limits, *, bound_data: bool) -> tuple[str, ...]:
    """The words before the sandbox program: join the groups as root, lower the limits, become the slot, execute.

    `bound_data` limits each process's data segment, which is all there is where no control group limits memory.
    """
    steps = joining(join)
    cpu_seconds = max(1, limits.cpu_seconds)
    steps += [
        "umask 022",
        "ulimit -c 0",
        f"ulimit -n {at_most(resource.RLIMIT_NOFILE, limits.open_files)}",
        f"ulimit -f {at_most(resource.RLIMIT_FSIZE, limits.file_bytes) // 512}",
        # The hard limit lies above the soft one, so that the end shows as SIGXCPU and not as SIGKILL.
        f"ulimit -S -t {at_most(resource.RLIMIT_CPU, cpu_seconds)}",
        f"ulimit -H -t {at_most(resource.RLIMIT_CPU, cpu_seconds + 2)}",
        f"ulimit -l {at_most(resource.RLIMIT_MEMLOCK, 64 << 10) // 1024}",
    ]
    if bound_data:
        steps.append(f"ulimit -d {at_most(resource.RLIMIT_DATA, limits.memory_bytes) // 1024}")
    drop = ""
    if slot_uid is not None:
        # Bubblewrap ties itself to this process only when it has read its options, which a parked one waits for.
        drop = (
            f"setpriv --reuid={slot_uid} --regid={slot_uid} --clear-groups --inh-caps=-all "
            "--bounding-set=-all --no-new-privs --pdeathsig=KILL -- "
        )
    return ("/bin/sh", "-ec", "\n".join([*steps, f'exec {drop}"$@"']), "sandbox")


def joining(files: Sequence[Path]) -> list[str]:
    """Shell commands by which a process joins control groups."""
    return [f"echo $$ >{shlex.quote(str(file))} || exit {JOIN_FAILED}" for file in files]


def at_most(kind: int, wanted: int) -> int:
    """`wanted`, or what this process itself is limited to, if that is less: nobody can raise a hard limit."""
    hard = resource.getrlimit(kind)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


@dataclass(frozen=True, slots=True)
class Pipes:
    """Descriptors a command reads from and writes to."""

    stdin: int
    stdout: int
    stderr: int


class _Exit:
    """A process watched until it ends. Any number of tasks may wait for it."""

    def __init__(self, pid: int) -> None:
        self._handle = os.pidfd_open(pid)
        self._happened = asyncio.Event()
        self._open = True
        asyncio.get_running_loop().add_reader(self._handle, self._notice)

    def _notice(self) -> None:
        self._happened.set()
        asyncio.get_running_loop().remove_reader(self._handle)

    async def wait(self) -> None:
        await self._happened.wait()

    def kill(self) -> None:
        with suppress(OSError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def close(self) -> None:
        if self._open:
            asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)
            self._open = False


class Child:
    """One started program: its process, and those of its group that were handed to this process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._outer = _Exit(process.pid)
        self._gone = False
        self._unreaped = {process.pid, -process.pid}
        self._user_seconds = 0.0
        self._system_seconds = 0.0
        self._max_rss_bytes = 0
        self.status: int | None = None
        """What the program itself ended with, -n for signal n, once that is known."""

    @property
    def exit_code(self) -> int | None:
        return self.status

    @property
    def rusage(self) -> Rusage:
        """Of all processes waited for."""
        return Rusage(self._user_seconds, self._system_seconds, self._max_rss_bytes)

    @property
    def oom_kills(self) -> int:
        return 0

    async def ended(self) -> None:
        """Returns when the outer process has ended; the rest may live for a moment more."""
        await self._outer.wait()

    def kill(self) -> None:
        """Ends the program and its group."""
        if self._gone:
            return
        # The group too: before the sandbox has its own session, its first process is only reachable there.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._outer.kill()

    async def gone(self) -> None:
        """Kills, and returns once no process of the sandbox exists. Raises `SandboxFailure` if that takes too long."""
        self.kill()
        try:
            async with asyncio.timeout(_BARRIER_SECONDS):
                await self._outer.wait()
                await self._others_gone()
                while not self._gone and not self._reaped():
                    # Killed before it had a pid namespace, so only waiting tells that it is gone.
                    await asyncio.sleep(_REAP_SECONDS)
        except TimeoutError:
            raise SandboxFailure("processes of a sandbox cannot be ended", reason="stuck") from None
        if not self._gone:
            self._gone = True
            self._close()

    async def _others_gone(self) -> None:
        """Waits for processes outside the group that the outer one leaves behind."""

    def _reaped(self) -> bool:
        """Waits for the outer process and for those that were handed to this process; says whether none is left."""
        self._process.returncode = 0
        for target in list(self._unreaped):
            try:
                found, status, used = os.wait4(target, os.WNOHANG)
            except ChildProcessError:
                self._unreaped.discard(target)
                continue
            if found:
                self._user_seconds += used.ru_utime
                self._system_seconds += used.ru_stime
                self._max_rss_bytes = max(self._max_rss_bytes, used.ru_maxrss * 1024)
                # A number that was waited for may soon be another's; that of a group only when it is empty.
                self._unreaped -= {found}
            if found == self._process.pid:
                self.status = os.waitstatus_to_exitcode(status)
        return not self._unreaped

    def _close(self) -> None:
        self._outer.close()


class ReportingChild(Child):
    """A program that reports in JSON: the first process of its pid namespace, and what the command returned."""

    def __init__(self, process: subprocess.Popen[bytes], report: int) -> None:
        super().__init__(process)
        self._handle = report
        self._first_pid: int | None = None
        self._first: _Exit | None = None
        self._report = b""
        os.set_blocking(report, False)
        asyncio.get_running_loop().add_reader(report, self._read_report)

    @property
    def exit_code(self) -> int | None:
        return next((record["exit-code"] for record in self._records() if "exit-code" in record), None)

    def kill(self) -> None:
        """The kernel ends what is in a pid namespace when the first process of it goes."""
        super().kill()
        if self._first is not None and not self._gone:
            self._first.kill()

    async def _others_gone(self) -> None:
        self._read_report()
        if self._first is not None:
            # A pid namespace's first process ends only after every other one in it has.
            await self._first.wait()

    def _close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)
        super()._close()
        if self._first is not None:
            self._first.close()

    def _read_report(self) -> None:
        while not self._gone:
            try:
                piece = os.read(self._handle, 4096)
            except BlockingIOError:
                break
            if not piece or len(self._report) > _REPORT_BYTES:
                asyncio.get_running_loop().remove_reader(self._handle)
                break
            self._report += piece
        if self._first_pid is None:
            self._watch_first()

    def _watch_first(self) -> None:
        pid = next((record["child-pid"] for record in self._records() if "child-pid" in record), None)
        if pid is None:
            return
        self._first_pid = pid
        self._unreaped.add(pid)
        with suppress(ProcessLookupError):
            first = _Exit(pid)
            if _parent(pid) in (self._process.pid, os.getpid()):
                self._first = first
            else:
                # Already gone and its number used again: somebody else's process is neither awaited nor killed.
                first.close()

    def _records(self) -> list[dict[str, int]]:
        records = []
        for line in self._report.splitlines():
            with suppress(json.JSONDecodeError):
                records.append(json.loads(line))
        return records


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def start(argv: Sequence[str], pipes: Pipes, inherited: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """Starts `argv` in a session of its own. Must be called from the event loop's thread: the sandbox dies with it.

    `inherited`: further descriptors for the program itself; none of them reaches the command. Raises `SandboxFailure`.
    """
    try:
        return subprocess.Popen(
            argv,
            stdin=pipes.stdin,
            stdout=pipes.stdout,
            stderr=pipes.stderr,
            pass_fds=tuple(inherited),
            start_new_session=True,
            cwd="/",
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        )
    except (OSError, ValueError) as error:
        raise SandboxFailure(f"the command cannot be started: {error}", reason="bad_command", retryable=False) from None


def strays(marker: str, *programs: str) -> list[int]:
    """Pids of `programs` (bubblewrap unless given) that were started with a word that begins with `marker`, for example
    by a worker that died."""
    names = tuple(program.encode() for program in programs or ("bwrap",))
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(names) and any(word.startswith(marker.encode()) for word in words):
                found.append(int(entry.name))
    return found
