"""Started sandboxes with their groups and pipes: for a command that is there, or parked for one that is to come."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from codeagent.sandboxes.box import Box
from codeagent.sandboxes.cgroups import ControlGroups, Group, Usage
from codeagent.sandboxes.launcher import Launcher, ParkedProgram, ParkingLauncher, Place, Program
from codeagent.sandboxes.processes import Pipes
from codeagent.sandboxes.protocol import Limits, SandboxFailure

_GROUP_SECONDS = 5.0


@dataclass(eq=False, slots=True)
class Launch:
    """A started sandbox. `stdout` and `stderr` are the ends to read; `before` is what its group used until there was a
    command for it."""

    program: Program
    group: Group | None
    stdout: int
    stderr: int
    before: Usage = field(default_factory=Usage)
    _gone: bool = False
    _open: bool = True

    async def gone(self) -> None:
        """Kills, and returns once no process of it exists. Idempotent. Raises `SandboxFailure` (`stuck`)."""
        if self._gone:
            return
        if self.group is not None:
            self.group.kill()
        await self.program.gone()
        self._gone = True

    def usage(self) -> Usage:
        """Of the command and the sandbox around it, without the time it was parked."""
        if self.group is None:
            rusage = self.program.rusage
            return Usage(rusage.user_seconds + rusage.system_seconds, rusage.max_rss_bytes)
        usage = self.group.usage()
        return replace(usage, cpu_seconds=usage.cpu_seconds - self.before.cpu_seconds)

    async def remove(self) -> None:
        """Leaves nothing of it: no process, no descriptor, no group. Idempotent. Raises `SandboxFailure` (`stuck`)."""
        if self._open:
            self._open = False
            os.close(self.stdout)
            os.close(self.stderr)
        try:
            await self.gone()
        finally:
            if self.group is not None:
                await _remove(self.group)


@dataclass(frozen=True, slots=True)
class Parked:
    """A sandbox that waits in its group, under limits that cannot be changed any more. Used once."""

    launch: Launch
    program: ParkedProgram
    limits: Limits

    def claim(self, box: Box, limits: Limits) -> Launch | None:
        """The launch, told to go on with `box`; `None` if it has other limits, has died, or cannot be told."""
        if _unchangeable(limits) != _unchangeable(self.limits):
            return None
        if self.launch.group is not None:
            self.launch.before = self.launch.group.usage()
        return self.launch if self.program.claim(box) else None


@dataclass(frozen=True, slots=True)
class Machine:
    """What starting a sandbox needs of this machine. `groups` is absent where no control groups are used."""

    launcher: Launcher
    groups: ControlGroups | None

    def start(self, name: str, slot_uid: int | None, box: Box, limits: Limits, stdin: bytes) -> Launch:
        """Called from the event loop's thread. Raises `SandboxFailure`; nothing is left of it then."""
        group = self._group(name, limits)
        with _removed_on_failure(group), _input(stdin) as source, _outputs() as (stdout, stderr, ends):
            place = Place(name, slot_uid, () if group is None else group.procs_files)
            program = self.launcher.start(box, limits, place, Pipes(source, *ends))
            return Launch(program, group, stdout, stderr)

    def park(self, name: str, slot_uid: int | None, limits: Limits) -> Parked | None:
        """As `start`, for a command without input that is to come; `None` where sandboxes cannot wait.

        Only in a group: nothing else tells a successor whose a parked sandbox was, should this process be killed.
        """
        if self.groups is None or not isinstance(self.launcher, ParkingLauncher):
            return None
        group = self._group(name, limits)
        with _removed_on_failure(group), _input(b"") as source, _outputs() as (stdout, stderr, ends):
            place = Place(name, slot_uid, () if group is None else group.procs_files)
            program = self.launcher.park(limits, place, Pipes(source, *ends))
            return Parked(Launch(program, group, stdout, stderr), program, limits)

    def _group(self, name: str, limits: Limits) -> Group | None:
        return None if self.groups is None else self.groups.create(name, self.launcher.room(limits))


def _unchangeable(limits: Limits) -> tuple[object, ...]:
    """What a sandbox and its group are given when they are made."""
    return (
        limits.cpu_seconds,
        limits.cpu_cores,
        limits.memory_bytes,
        limits.processes,
        limits.open_files,
        limits.file_bytes,
    )


async def _remove(group: Group) -> None:
    deadline = time.monotonic() + _GROUP_SECONDS
    while not group.remove():
        if time.monotonic() > deadline:
            raise SandboxFailure("the control group of a command cannot be removed", reason="stuck")
        await asyncio.sleep(0.002)


@contextmanager
def _removed_on_failure(group: Group | None) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if group is not None:
            group.remove(within_seconds=1.0)
        raise


@contextmanager
def _outputs() -> Iterator[tuple[int, int, tuple[int, int]]]:
    """Two pipes: their reading ends, the caller's unless the body raises, and their writing ends."""
    stdout, to_stdout = os.pipe()
    stderr, to_stderr = os.pipe()
    try:
        yield stdout, stderr, (to_stdout, to_stderr)
    except BaseException:
        os.close(stdout)
        os.close(stderr)
        raise
    finally:
        os.close(to_stdout)
        os.close(to_stderr)


@contextmanager
def _input(data: bytes) -> Iterator[int]:
    """A descriptor to read `data` from: nothing has to feed the command while it runs."""
    handle = os.memfd_create("stdin", os.MFD_CLOEXEC) if data else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        if data:
            os.lseek(handle, 0, os.SEEK_SET)
        yield handle
    finally:
        os.close(handle)
