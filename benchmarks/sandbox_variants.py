"""The ways to run one small command that `make bench-sandbox` compares."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from codeagent.sandboxes import argv, cgroup_layout, machine, processes, seccomp
from codeagent.sandboxes.box import Box
from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.cgroups import ControlGroups
from codeagent.sandboxes.protocol import ExecSpec, Limits, Reason

COMMAND = ("echo", "hello")
_MOST_WORKERS = 2
_SLOT_UID = 250_500


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds from the request to the command's first output, and to its result."""

    started: float
    ended: float


@dataclass(frozen=True, slots=True)
class Variant:
    """`run` takes the number of the worker that asks, from 0."""

    name: str
    run: Callable[[int], Awaitable[Sample]]


def by_hand(state_dir: Path, stack: AsyncExitStack, limits: Limits) -> list[Variant]:
    """Without a driver: a plain process, bubblewrap with little more than its namespaces, bubblewrap with every option
    a driver gives it, in a group that is there, and gVisor where it is installed."""
    bare = "bwrap --unshare-user --unshare-pid --unshare-net --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp --".split()
    variants = [_simple("plain process", ()), _simple("bare bwrap", bare), _whole(state_dir, stack, limits)]
    if shutil.which("runsc"):
        variants.append(_simple("runsc", ("runsc", "--ignore-cgroups", "--network=none", "do")))
    return variants


def _simple(name: str, before: Sequence[str]) -> Variant:
    async def run(_worker: int) -> Sample:
        return await asyncio.to_thread(_timed, (*before, *COMMAND), ())

    return Variant(name, run)


def _whole(state_dir: Path, stack: AsyncExitStack, limits: Limits) -> Variant:
    around = machine.surroundings(state_dir, ())
    filters = seccomp.write_programs(state_dir / "seccomp")
    groups = ControlGroups(cgroup_layout.find_trees(), f"codeagent-bench-{secrets.token_hex(4)}")
    groups.prepare()
    stack.callback(groups.retire)
    group = groups.create("by-hand", limits)
    stack.callback(group.remove, within_seconds=5.0)
    files = state_dir / "by-hand"
    files.mkdir(mode=0o700)
    os.chown(files, _SLOT_UID, _SLOT_UID)
    before = processes.prelude(group.procs_files, _SLOT_UID, limits, bound_data=False)
    box = Box(command=COMMAND, workspace=files, tmp_bytes=limits.tmp_bytes)

    def once() -> Sample:
        with _handles(filters) as (status, *opened):
            words = argv.build("bwrap", box, around, status=status, filters=opened)
            return _timed((*before, *words), (status, *opened))

    async def run(_worker: int) -> Sample:
        return await asyncio.to_thread(once)

    return Variant("by hand", run)


@contextmanager
def _handles(filters: Sequence[Path]) -> Iterator[list[int]]:
    """Somewhere to report to, and the filters."""
    handles = [os.open(os.devnull, os.O_WRONLY), *(os.open(path, os.O_RDONLY) for path in filters)]
    try:
        yield handles
    finally:
        for handle in handles:
            os.close(handle)


def _timed(words: Sequence[str], inherited: Sequence[int]) -> Sample:
    began = time.perf_counter()
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pass_fds=inherited) as process:
        assert process.stdout is not None
        said = process.stdout.read(1)
        started = time.perf_counter() - began
        process.stdout.read()
        code = process.wait()
    if code != 0 or not said:
        raise RuntimeError(f"{words[0]} ended with {code}")
    return Sample(started, time.perf_counter() - began)


async def by_drivers(
    cold: BubblewrapDriver, parked: BubblewrapDriver, source: Path, limits: Limits
) -> list[Variant]:
    """Our driver without and with parked sandboxes; each worker has a workspace of its own."""
    return [await _driven("cold", cold, source, limits), await _driven("parked", parked, source, limits)]


async def _driven(name: str, driver: BubblewrapDriver, source: Path, limits: Limits) -> Variant:
    workspaces = [await driver.open(f"bench {worker}", source, b"", limits) for worker in range(_MOST_WORKERS)]

    async def run(worker: int) -> Sample:
        began = time.perf_counter()
        started: list[float] = []

        async def first(_stream: str, _piece: bytes) -> None:
            started.append(time.perf_counter() - began)

        record = await driver.run(workspaces[worker], ExecSpec(COMMAND, limits=limits), first)
        if record.reason is not Reason.OK:
            raise RuntimeError(f"a command ended {record.reason}: {record.detail}")
        return Sample(started[0], time.perf_counter() - began)

    return Variant(name, run)
