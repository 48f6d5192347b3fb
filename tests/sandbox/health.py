"""How a machine is: measured before and after attacks, since what they leave behind may show nowhere else."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

_SETTLE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Health:
    """Counts, bytes and seconds. `clock_offset` is wall clock less uptime, which only setting the clock changes."""

    tasks: int
    memory_available: int
    disk_free: int
    inodes_free: int
    open_files: int
    mounts: int
    start_seconds: float
    clock_offset: float

    def harmed_since(self, before: Health) -> list[str]:
        """What is worse than other programs of a shared machine explain."""
        grown = {
            "tasks": self.tasks - before.tasks > 150,
            "memory": before.memory_available - self.memory_available > 1 << 30,
            "disk": before.disk_free - self.disk_free > 1 << 29,
            "inodes": before.inodes_free - self.inodes_free > 50_000,
            "open files": self.open_files - before.open_files > 5_000,
            "mounts": self.mounts - before.mounts > 20,
            "starting a program": self.start_seconds > max(1.0, 20 * before.start_seconds),
            "clock": abs(self.clock_offset - before.clock_offset) > 60.0,
        }
        return [f"{name}: {before} became {self}" for name, worse in grown.items() if worse]


def measured() -> Health:
    """Blocking, milliseconds."""
    disk = os.statvfs("/tmp")
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    began = time.monotonic()
    subprocess.run(["/bin/true"], check=True)
    return Health(
        tasks=int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2]),
        memory_available=int(fields["MemAvailable"].split()[0]) << 10,
        disk_free=disk.f_bavail * disk.f_frsize,
        inodes_free=disk.f_favail,
        open_files=int(Path("/proc/sys/fs/file-nr").read_text().split()[0]),
        mounts=len(Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()),
        start_seconds=time.monotonic() - began,
        clock_offset=time.time() - time.clock_gettime(time.CLOCK_BOOTTIME),
    )


def lasting_harm(before: Health) -> list[str]:
    """What is still worse when the machine has had time to settle. Blocking."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while harm := measured().harmed_since(before):
        if time.monotonic() > deadline:
            return harm
        time.sleep(0.2)
    return []
