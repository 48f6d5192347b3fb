"""Says how a command ended, from what was observed of it."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field

from codeagent.sandboxes.protocol import Connection, ExecRecord, IsolationLevel, Reason, Rusage

_HIGHEST_SIGNAL = 64


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known of an ended command. `stopped` is why the driver ended it; `exit_code` is absent if it never ran
    to its own end. `reported` tells whether the sandbox program said that the command ended."""

    stopped: Reason | None
    exit_code: int | None
    oom_kills: int
    pids_refused: int
    disk_full: bool
    inodes_used_up: bool
    cpu_time_used_up: bool
    stdout: bytes
    stderr: bytes
    stdout_seen_bytes: int
    stderr_seen_bytes: int
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    rusage: Rusage = field(default_factory=Rusage)
    throttled_seconds: float = 0.0
    peak_processes: int = 0

    @property
    def signal(self) -> int | None:
        """Signal n, seen as exit code 128 + n, as every shell shows it."""
        if self.exit_code is None or not 128 < self.exit_code <= 128 + _HIGHEST_SIGNAL:
            return None
        return self.exit_code - 128


def reason_for(seen: Observed) -> Reason:
    """The first that applies, in the order of `Reason`."""
    if seen.stopped in (Reason.CANCELED, Reason.OUTPUT_LIMIT, Reason.TIMEOUT):
        return seen.stopped
    if seen.signal == signal.SIGXCPU:
        return Reason.TIMEOUT
    if seen.stopped is Reason.OOM or (seen.oom_kills and seen.exit_code != 0):
        return Reason.OOM
    if seen.exit_code is None:
        return Reason.SANDBOX_ERROR
    if seen.signal is not None:
        return Reason.KILLED
    return Reason.EXIT if seen.exit_code else Reason.OK


def limits_hit(seen: Observed, egress: Sequence[Connection] = ()) -> tuple[str, ...]:
    """Every limit the command ran into, whether or not that ended it."""
    checks = {
        "memory": seen.oom_kills > 0,
        "pids": seen.pids_refused > 0,
        "disk": seen.disk_full,
        "inodes": seen.inodes_used_up,
        "file_size": seen.signal == signal.SIGXFSZ,
        "cpu_time": seen.cpu_time_used_up or seen.signal == signal.SIGXCPU,
        "seccomp": seen.signal == signal.SIGSYS,
        "output_truncated": len(seen.stdout) < seen.stdout_seen_bytes or len(seen.stderr) < seen.stderr_seen_bytes,
        "egress_denied": any(connection.verdict.denied for connection in egress),
    }
    return tuple(name for name, hit in checks.items() if hit)


def record(seen: Observed, driver: str, level: IsolationLevel, egress: tuple[Connection, ...] = ()) -> ExecRecord:
    """The record of the command. What a sandbox program says when it fails is detail, not the command's output."""
    reason = reason_for(seen)
    failed = reason is Reason.SANDBOX_ERROR
    return ExecRecord(
        reason=reason,
        exit_code=seen.exit_code,
        signal=seen.signal,
        stdout=seen.stdout,
        stderr=b"" if failed else seen.stderr,
        stdout_seen_bytes=seen.stdout_seen_bytes,
        stderr_seen_bytes=0 if failed else seen.stderr_seen_bytes,
        limits_hit=limits_hit(seen, egress),
        wall_seconds=seen.wall_seconds,
        cpu_seconds=seen.cpu_seconds,
        peak_memory_bytes=seen.peak_memory_bytes,
        driver=driver,
        level=level,
        detail=last_words(seen.stderr) if failed else "",
        rusage=seen.rusage,
        throttled_seconds=seen.throttled_seconds,
        oom_kills=seen.oom_kills,
        peak_processes=seen.peak_processes,
        egress=egress,
    )


def last_words(text: bytes) -> str:
    """The last two lines of a program's complaint, fit to be shown: in one, printable, short."""
    lines = [line.strip() for line in text.decode("utf-8", "backslashreplace").splitlines() if line.strip()]
    last = "; ".join(lines[-2:])[-300:] or "no explanation was given"
    return "".join(char if char.isprintable() else "?" for char in last)
