"""Runs one sandbox from its start to the proof that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any

from codeagent.sandboxes.box import Box
from codeagent.sandboxes.launches import Launch, Machine, Parked
from codeagent.sandboxes.outcome import Observed
from codeagent.sandboxes.protocol import Limits, OutputSink, Reason
from codeagent.sandboxes.streams import Capture
from codeagent.sandboxes.uninterrupted import to_the_end

_WATCH_SECONDS = 0.1
_DRAIN_SECONDS = 5.0
"""How long a slow caller may take for the last output of a command that has ended."""


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

    async def execute(
        self, box: Box, limits: Limits, stdin: bytes, sink: OutputSink, parked: Parked | None = None
    ) -> Observed:
        """Runs `box`, in `parked` if that will do. When this returns or raises, no process of either exists.

        Raises `SandboxFailure` if it cannot be started or ended, and whatever `sink` raises.
        """
        began = time.monotonic()
        launch = None
        try:
            launch = None if parked is None else parked.claim(box, limits)
            if launch is None:
                launch = self._machine.start(self._name, self._slot_uid, box, limits, stdin)
            captures = [
                Capture(name, handle, sink, limits.output_kept_bytes, limits.output_hard_bytes)
                for name, handle in (("stdout", launch.stdout), ("stderr", launch.stderr))
            ]
            took = await self._follow(launch, captures, limits, began)
            return self._observed(launch, captures, box, took)
        finally:
            try:
                await to_the_end(_removed(launch, None if parked is None else parked.launch))
            finally:
                self.finished.set()

    async def _follow(self, launch: Launch, captures: list[Capture], limits: Limits, began: float) -> float:
        """Returns the seconds the command took, when it is gone and its output was delivered."""
        carriers = [asyncio.ensure_future(capture.carry(self._overflow)) for capture in captures]
        for carrier in carriers:
            carrier.add_done_callback(self._carrier_done)
        helpers = [asyncio.ensure_future(launch.program.ended())]
        if launch.group is not None:
            helpers.append(asyncio.ensure_future(self._watch(launch, limits)))
        try:
            left = max(0.0, began + limits.wall_seconds - time.monotonic())
            awaited: set[asyncio.Future[Any]] = {helpers[0], self._stopped}
            done, _ = await asyncio.wait(awaited, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                self.stop(Reason.TIMEOUT)
            await to_the_end(launch.gone())
            took = time.monotonic() - began
            await asyncio.wait(carriers, timeout=_DRAIN_SECONDS)
        finally:
            await to_the_end(_gone(launch, [*helpers, *carriers]))
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

    async def _watch(self, launch: Launch, limits: Limits) -> None:
        """Ends what the kernel only hurts: with v1 groups, the processes that survive when one was out of memory."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            usage = launch.usage()
            if usage.oom_kills:
                self.stop(Reason.OOM)
            if usage.cpu_seconds > limits.cpu_seconds:
                self._cpu_time_used_up = True
                self.stop(Reason.TIMEOUT)

    def _observed(self, launch: Launch, captures: list[Capture], box: Box, wall_seconds: float) -> Observed:
        stdout, stderr = captures
        rusage = launch.program.rusage
        usage = launch.usage()
        disk = None if box.volume is None else os.statvfs(box.volume)
        return Observed(
            stopped=self._stopped.result() if self._stopped.done() else None,
            exit_code=None if self._stopped.done() else launch.program.exit_code,
            oom_kills=max(usage.oom_kills, launch.program.oom_kills),
            pids_refused=usage.pids_refused,
            disk_full=disk is not None and disk.f_bavail == 0,
            inodes_used_up=disk is not None and disk.f_files > 0 and disk.f_favail == 0,
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


async def _gone(launch: Launch, tasks: Sequence[asyncio.Future[None]]) -> None:
    """Kills, passes the barrier, and ends `tasks`."""
    try:
        await launch.gone()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _removed(*launches: Launch | None) -> None:
    for launch in dict.fromkeys(launches):
        if launch is not None:
            await launch.remove()
