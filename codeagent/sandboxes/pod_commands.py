"""Runs a command in a pod, under limits, and sees to it that nothing of the command is left."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from codeagent.sandboxes import container_argv, pod_states
from codeagent.sandboxes.cluster import ClusterApi
from codeagent.sandboxes.outcome import Observed
from codeagent.sandboxes.pod_exec import Broken, end_all, perform
from codeagent.sandboxes.pod_lifecycle import Pods
from codeagent.sandboxes.pods import COMMANDS
from codeagent.sandboxes.protocol import ExecSpec, Limits, OutputSink, Reason, SandboxFailure
from codeagent.sandboxes.uninterrupted import to_the_end

_TASKS_BESIDE = 2
"""The container's first process, and the one that makes room for the command."""


@dataclass(eq=False)
class PodWorkspace:
    """A workspace that is a pod. `pod`: its name in the cluster; `tree` names its base in the repository. `counted`:
    what the container's control group had counted after the last command, where it can be read."""

    id: str
    pod: str
    restarts: int = 0
    tree: str = ""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    closing: asyncio.Lock = field(default_factory=asyncio.Lock)
    counted: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.pod


class _Output:
    """Keeps the first bytes of each stream, counts all, and says when there are too many."""

    def __init__(self, limits: Limits, sink: OutputSink) -> None:
        self.kept = {"stdout": b"", "stderr": b""}
        self.seen = {"stdout": 0, "stderr": 0}
        self.overflown = asyncio.Event()
        self._limits = limits
        self._sink = sink

    async def take(self, stream: str, piece: bytes) -> None:
        self.seen[stream] += len(piece)
        kept = piece[: max(0, self._limits.output_kept_bytes - len(self.kept[stream]))]
        self.kept[stream] += kept
        if self.seen[stream] > self._limits.output_hard_bytes:
            self.overflown.set()
        if kept:
            await self._sink(stream, kept)


class Command:
    """One command in a workspace whose turn it is."""

    def __init__(self, api: ClusterApi, pods: Pods, workspace: PodWorkspace) -> None:
        self._api = api
        self._pods = pods
        self._workspace = workspace
        self._oom_kills = 0
        self._cpu_seconds = 0.0

    async def run(self, spec: ExecSpec, cwd: tuple[str, ...], sink: OutputSink) -> Observed:
        """What was seen of it. When this returns or raises nothing of it runs, or its pod is gone. Raises
        `SandboxFailure` for what became of the pod."""
        output, began = _Output(spec.limits, sink), time.monotonic()
        request = {
            "do": "run",
            "argv": spec.argv,
            "cwd": cwd,
            "env": {**container_argv.ENVIRONMENT, **spec.env},
            "rlimits": _rlimits(spec.limits),
        }
        work = asyncio.ensure_future(
            perform(self._api, self._workspace.pod, COMMANDS, request, spec.stdin, output.take)
        )
        try:
            stopped = await self._ended(work, output, spec.limits.wall_seconds)
        finally:
            wall_seconds = time.monotonic() - began
            await to_the_end(self._end(work))
        code = None if stopped else await self._code(work)
        if code is None and stopped is None:
            stopped = Reason.OOM
        return Observed(
            stopped=stopped,
            exit_code=code,
            oom_kills=self._oom_kills,
            pids_refused=0,
            disk_full=False,
            inodes_used_up=False,
            cpu_time_used_up=False,
            stdout=output.kept["stdout"],
            stderr=output.kept["stderr"],
            stdout_seen_bytes=output.seen["stdout"],
            stderr_seen_bytes=output.seen["stderr"],
            wall_seconds=wall_seconds,
            cpu_seconds=self._cpu_seconds,
            peak_memory_bytes=0,
        )

    async def _ended(self, work: asyncio.Future[int], output: _Output, seconds: float) -> Reason | None:
        """Why the command has to be stopped; `None` if its end was told, or the connection broke."""
        events: dict[asyncio.Future[Any], Reason] = {
            asyncio.ensure_future(self._workspace.closed.wait()): Reason.CANCELED,
            asyncio.ensure_future(output.overflown.wait()): Reason.OUTPUT_LIMIT,
        }
        waited: set[asyncio.Future[Any]] = {work, *events}
        try:
            done, _ = await asyncio.wait(waited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for event in events:
                event.cancel()
        told = [reason for event, reason in events.items() if event in done]
        if told:
            return told[0]
        if not done:
            return Reason.TIMEOUT
        # The last output may be the one that was too much.
        return Reason.OUTPUT_LIMIT if output.overflown.is_set() else None

    async def _end(self, work: asyncio.Future[int]) -> None:
        if not work.done():
            work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        if self._workspace.closed.is_set():
            async with self._workspace.closing:  # until its pod is gone
                return
        try:
            await self._barrier()
        except SandboxFailure as failure:
            await self._after_broken_barrier(failure)

    async def _barrier(self) -> None:
        told = await end_all(self._api, self._workspace.pod, COMMANDS)
        before, after = self._workspace.counted, _counters(told)
        self._workspace.counted = after
        self._oom_kills = max(0, after.get("oom_kill", 0) - before.get("oom_kill", 0))
        self._cpu_seconds = max(0, after.get("usage_usec", 0) - before.get("usage_usec", 0)) / 1e6

    async def _after_broken_barrier(self, failure: SandboxFailure) -> None:
        """A container that was ended for want of memory is started again, and nothing of the command is left in it.
        Any other pod is given up: something may still run in it."""
        try:
            pod = await self._pods.look(self._workspace.pod)
            if pod_states.ran_out_of_memory(pod, self._workspace.restarts):
                pod = await self._pods.running(self._workspace.pod)
                self._workspace.restarts = pod_states.restarts(pod)
                self._workspace.counted = {}
                self._oom_kills = 1
                return
            failure = pod_states.failure(pod) or failure
        except SandboxFailure as why:
            failure = why
        self._workspace.closed.set()
        await self._pods.remove(self._workspace.pod)
        raise failure

    async def _code(self, work: asyncio.Future[int]) -> int | None:
        """The exit code; `None` if the container ended under it, for want of memory. Raises `SandboxFailure`."""
        error = work.exception()
        if error is None:
            return work.result()
        if not isinstance(error, Broken):
            raise error
        if self._oom_kills or await self._restarted_for_memory():
            self._oom_kills = self._oom_kills or 1
            return None
        raise error

    async def _restarted_for_memory(self) -> bool:
        """The barrier may have reached the container that took the place of the one that ended."""
        pod = await self._pods.look(self._workspace.pod)
        ended = pod_states.ran_out_of_memory(pod, self._workspace.restarts)
        self._workspace.restarts = pod_states.restarts(pod)
        return ended


def _rlimits(limits: Limits) -> dict[str, tuple[int, int]]:
    cpu_seconds, tasks = max(1, limits.cpu_seconds), limits.processes + _TASKS_BESIDE
    return {
        "CORE": (0, 0),
        # Two limits of processor time, so that the end shows as SIGXCPU and not as SIGKILL.
        "CPU": (cpu_seconds, cpu_seconds + 2),
        "FSIZE": (limits.file_bytes, limits.file_bytes),
        "NOFILE": (limits.open_files, limits.open_files),
        "NPROC": (tasks, tasks),
    }


def _counters(text: bytes) -> dict[str, int]:
    """`name value` lines. A counter that occurs twice is taken from the first file."""
    found: dict[str, int] = {}
    for line in text.decode("ascii", "replace").splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            found.setdefault(name, int(value))
    return found
