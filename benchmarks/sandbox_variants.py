"""The ways to run one small command that `make bench-sandbox` compares."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from codeagent.sandboxes import argv, cgroup_layout, machine, processes, seccomp
from codeagent.sandboxes.box import Box
from codeagent.sandboxes.cgroups import ControlGroups
from codeagent.sandboxes.local import LocalDriver
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
    """Without a driver: a plain process, bubblewrap with little more than its namespaces, and with every
    option a driver gives it, in a group that is there."""
    return [
        _simple("plain process", lambda _: COMMAND),
        _simple("bare bwrap", _bare),
        _whole(state_dir, stack, limits),
    ]


def _bare(status: int) -> Sequence[str]:
    isolated = "--unshare-user --unshare-pid --unshare-net --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp"
    return ("bwrap", *isolated.split(), "--json-status-fd", str(status), "--", *COMMAND)


def _simple(name: str, words: Callable[[int], Sequence[str]]) -> Variant:
    async def run(_worker: int) -> Sample:
        return await asyncio.to_thread(_timed, words, ())

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
        with ExitStack() as files:
            opened = [files.enter_context(path.open("rb")).fileno() for path in filters]

            def words(status: int) -> Sequence[str]:
                return (*before, *argv.build("bwrap", box, around, status=status, filters=opened))

            return _timed(words, opened)

    async def run(_worker: int) -> Sample:
        return await asyncio.to_thread(once)

    return Variant("by hand", run)


def _timed(words: Callable[[int], Sequence[str]], inherited: Sequence[int]) -> Sample:
    began = time.perf_counter()
    reading, status = os.pipe()
    with os.fdopen(reading, "rb") as report:
        try:
            with subprocess.Popen(
                words(status), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pass_fds=(status, *inherited)
            ) as process:
                assert process.stdout is not None
                said = process.stdout.read(1)
                started = time.perf_counter() - began
                code = process.wait()
        finally:
            os.close(status)
        ended = time.perf_counter() - began
        if code != 0 or not said:
            raise RuntimeError(f"{process.args!r} ended with {code}")
        _wait_for_first(report.read())
    return Sample(started, ended)


def _wait_for_first(report: bytes) -> None:
    """The first process of a sandbox is handed to this one, since drivers asked for that, and has to be waited for."""
    for line in report.splitlines():
        with suppress(ChildProcessError):
            if "child-pid" in (told := json.loads(line)):
                os.waitpid(told["child-pid"], 0)


async def by_drivers(drivers: Mapping[str, LocalDriver], source: Path, limits: Limits) -> list[Variant]:
    """Through our drivers; each worker has a workspace of its own."""
    return [await _driven(name, driver, source, limits) for name, driver in drivers.items()]


async def _driven(name: str, driver: LocalDriver, source: Path, limits: Limits) -> Variant:
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
