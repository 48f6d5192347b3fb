"""Runs one sandbox from its start to the proof that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from codeagent.sandboxes.box import Box
from codeagent.sandboxes.cgroups import ControlGroups, Group, Usage
from codeagent.sandboxes.launcher import Launcher, Place, Program
from codeagent.sandboxes.outcome import Observed
from codeagent.sandboxes.processes import Pipes
from codeagent.sandboxes.protocol import Limits, OutputSink, Reason, SandboxFailure
from codeagent.sandboxes.streams import Capture
from codeagent.sandboxes.uninterrupted import to_the_end

_WATCH_SECONDS = 0.1
_DRAIN_SECONDS = 5.0
"""How long a slow caller may take for the last output of a command that has ended."""

_GROUP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What starting a sandbox needs of this machine. `groups` is absent where no control groups are used."""

    launcher: Launcher
    groups: ControlGroups | None


class Operation:
    """One command under way. `stop` ends it with a reason; `execute` runs it, once."""

    def __init__(self, machine: Machine, name: str, slot_uid: int | None) -> None:
        self._machine = machine
        self._name = name
        self._slot_uid = slot_uid
        self._stopped: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()
        self._cpu_time_used_up = False
        self.finished = asyncio.Event()

    def stop(self, reason: Reason) -> None:
        """The first reason wins. Returns before the command is gone; `finished` tells when."""
        if not self._stopped.done():
            self._stopped.set_result(reason)

    async def execute(self, box: Box, limits: Limits, stdin: bytes, sink: OutputSink) -> Observed:
        """Runs `box`. When this returns or raises, no process of it exists.

        Raises `SandboxFailure` if it cannot be started or ended, and whatever `sink` raises.
        """
        began = time.monotonic()
        group = None
        try:
            if self._machine.groups is not None:
                group = self._machine.groups.create(self._name, self._machine.launcher.room(limits))
            with ExitStack() as open_files:
                child, captures = self._start(box, limits, stdin, sink, group, open_files)
                took = await self._follow(child, captures, limits, group, began)
                return self._observed(child, captures, box, group, took)
        finally:
            if group is not None:
                await to_the_end(_remove(group))
            self.finished.set()

    def _start(
        self, box: Box, limits: Limits, stdin: bytes, sink: OutputSink, group: Group | None, files: ExitStack
    ) -> tuple[Program, list[Capture]]:
        captures, ends = [], []
        for name in ("stdout", "stderr"):
            reading, writing = os.pipe()
            captures.append(Capture(name, reading, sink, limits.output_kept_bytes, limits.output_hard_bytes))
            files.callback(captures[-1].close)
            ends.append(writing)
        with _closed_after(*ends), _input(stdin) as source:
            place = Place(self._name, self._slot_uid, () if group is None else group.procs_files)
            return self._machine.launcher.start(box, limits, place, Pipes(source, *ends)), captures

    async def _follow(
        self, child: Program, captures: list[Capture], limits: Limits, group: Group | None, began: float
    ) -> float:
        """Returns the seconds the command took, when it is gone and its output was delivered."""
        carriers = [asyncio.ensure_future(capture.carry(self._overflow)) for capture in captures]
        for carrier in carriers:
            carrier.add_done_callback(self._carrier_done)
        helpers = [asyncio.ensure_future(child.ended())]
        if group is not None:
            helpers.append(asyncio.ensure_future(self._watch(group, limits)))
        try:
            left = max(0.0, began + limits.wall_seconds - time.monotonic())
            awaited: set[asyncio.Future[Any]] = {helpers[0], self._stopped}
            done, _ = await asyncio.wait(awaited, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                self.stop(Reason.TIMEOUT)
            await to_the_end(_gone(child, group))
            took = time.monotonic() - began
            await asyncio.wait(carriers, timeout=_DRAIN_SECONDS)
        finally:
            await to_the_end(_gone(child, group, [*helpers, *carriers]))
        for carrier in carriers:
            if not carrier.cancelled():
                carrier.result()
        for capture in captures:
            capture.drain()
        return took

    def _overflow(self) -> None:
        self.stop(Reason.OUTPUT_LIMIT)

    def _carrier_done(self, carrier: asyncio.Future[None]) -> None:
        if not carrier.cancelled() and carrier.exception() is not None:
            self.stop(Reason.SANDBOX_ERROR)

    async def _watch(self, group: Group, limits: Limits) -> None:
        """Ends what the kernel only hurts: with v1 groups, the processes that survive when one was out of memory."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            usage = group.usage()
            if usage.oom_kills:
                self.stop(Reason.OOM)
            if usage.cpu_seconds > limits.cpu_seconds:
                self._cpu_time_used_up = True
                self.stop(Reason.TIMEOUT)

    def _observed(
        self, child: Program, captures: list[Capture], box: Box, group: Group | None, wall_seconds: float
    ) -> Observed:
        stdout, stderr = captures
        rusage = child.rusage
        used = Usage(rusage.user_seconds + rusage.system_seconds, rusage.max_rss_bytes)
        usage = used if group is None else group.usage()
        disk = os.statvfs(box.workspace)
        return Observed(
            stopped=self._stopped.result() if self._stopped.done() else None,
            exit_code=None if self._stopped.done() else child.exit_code,
            oom_kills=usage.oom_kills,
            pids_refused=usage.pids_refused,
            disk_full=box.writable and disk.f_bavail == 0,
            inodes_used_up=box.writable and disk.f_files > 0 and disk.f_favail == 0,
            cpu_time_used_up=self._cpu_time_used_up,
            stdout=stdout.kept,
            stderr=stderr.kept,
            stdout_seen_bytes=stdout.seen_bytes,
            stderr_seen_bytes=stderr.seen_bytes,
            wall_seconds=wall_seconds,
            cpu_seconds=usage.cpu_seconds,
            peak_memory_bytes=usage.peak_memory_bytes,
            rusage=rusage,
            throttled_seconds=usage.throttled_seconds,
            peak_processes=usage.peak_processes,
        )


async def _gone(child: Program, group: Group | None, tasks: Sequence[asyncio.Future[None]] = ()) -> None:
    """Kills, passes the barrier, and ends `tasks`. May be called again."""
    if group is not None:
        group.kill()
    try:
        await child.gone()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _remove(group: Group) -> None:
    deadline = time.monotonic() + _GROUP_SECONDS
    while not group.remove():
        if time.monotonic() > deadline:
            raise SandboxFailure("the control group of a command cannot be removed", reason="stuck")
        await asyncio.sleep(0.002)


@contextmanager
def _closed_after(*handles: int) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            os.close(handle)


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
