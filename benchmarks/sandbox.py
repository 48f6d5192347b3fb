"""`make bench-sandbox`: what a sandbox costs against a plain process and against bubblewrap run by hand, in one run."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.sandbox_variants import Sample, Variant, by_drivers, by_hand
from codeagent.sandboxes import archives
from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.local import LocalDriver
from codeagent.sandboxes.protocol import ExecSpec, Limits, SandboxUnavailable
from codeagent.sandboxes.runsc import RunscDriver
from codeagent.sandboxes.streams import discard

LIMITS = Limits(wall_seconds=20.0, workspace_bytes=64 << 20, workspace_inodes=5000, tmp_bytes=32 << 20)
BOUNDS = {"parked start / by hand, 1 worker": 1.3, "parked whole / by hand, 1 worker": 1.3}
_THOUGHT_SECONDS = 0.03
"""Between two commands, as between two of a model's: parked sandboxes are made in it, and group joins get slow."""
_BATCH = 8


async def measure(rounds: int) -> dict[str, float]:
    """Milliseconds, commands a second, and ratios by name; `rounds` samples of each variant at most, in turn."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="codeagent-bench-")))
        os.chmod(folder, 0o711)  # noqa: PTH101  # once, before anything is measured
        drivers = await _drivers(folder, stack)
        source = folder / "workspace.tar.gz"
        archives.pack_files({f"src/module_{number}.py": b"value = 1\n" * 50 for number in range(200)}, source, LIMITS)
        variants = [*by_hand(folder / "cold", stack, LIMITS), *await by_drivers(drivers, source, LIMITS)]
        found: dict[str, float] = {}
        for workers in (1, 2):
            found |= await _latencies(variants, workers, rounds)
            found |= await _throughput(variants, workers, max(1, rounds // 10))
        return found | await _workspaces(drivers["parked"], source, max(1, rounds // 10))


async def _drivers(folder: Path, stack: AsyncExitStack) -> dict[str, LocalDriver]:
    """By name, each proven. They share one Python runtime. gVisor where it is installed and works."""
    made: dict[str, LocalDriver] = {
        "cold": BubblewrapDriver(folder / "cold", parked=False),
        "parked": BubblewrapDriver(folder / "parked"),
        "runsc": RunscDriver(folder / "runsc"),
    }
    for name, driver in list(made.items()):
        stack.push_async_callback(driver.shutdown)
        if name != "cold":
            (folder / name).mkdir()
            (folder / name / "runtime").symlink_to(folder / "cold" / "runtime")
        try:
            await driver.probe()
        except SandboxUnavailable:
            if name != "runsc":
                raise
            del made[name]
    return made


async def _latencies(variants: Sequence[Variant], workers: int, rounds: int) -> dict[str, float]:
    samples: dict[str, list[Sample]] = {variant.name: [] for variant in variants}
    for _ in _at_most(rounds, 25.0):
        for variant in variants:
            samples[variant.name] += await asyncio.gather(*(variant.run(worker) for worker in range(workers)))
            await asyncio.sleep(_THOUGHT_SECONDS)
    plural = f"{workers} worker{'s' * (workers > 1)}"
    found = {}
    for name, taken in samples.items():
        for what, values in (("start", [one.started for one in taken]), ("whole", [one.ended for one in taken])):
            found[f"{name} {what} p50 ms, {plural}"] = statistics.median(values) * 1000
            found[f"{name} {what} p99 ms, {plural}"] = _p99(values) * 1000
    for what in ("start", "whole"):
        hand = found[f"by hand {what} p50 ms, {plural}"]
        for name in ("cold", "parked"):
            found[f"{name} {what} / by hand, {plural}"] = found[f"{name} {what} p50 ms, {plural}"] / hand
    return found


async def _throughput(variants: Sequence[Variant], workers: int, rounds: int) -> dict[str, float]:
    async def batch(variant: Variant, worker: int) -> None:
        for _ in range(_BATCH):
            await variant.run(worker)

    rates: dict[str, list[float]] = {variant.name: [] for variant in variants}
    for _ in _at_most(rounds, 10.0):
        for variant in variants:
            began = time.perf_counter()
            await asyncio.gather(*(batch(variant, worker) for worker in range(workers)))
            rates[variant.name].append(_BATCH * workers / (time.perf_counter() - began))
    plural = f"{workers} worker{'s' * (workers > 1)}"
    return {f"{name} commands/s, {plural}": statistics.median(rate) for name, rate in rates.items()}


async def _workspaces(driver: LocalDriver, source: Path, rounds: int) -> dict[str, float]:
    """Of a workspace of 200 files: to open it, to diff it unchanged, and to checkpoint a changed file."""
    took: dict[str, list[float]] = {"open": [], "diff": [], "checkpoint": []}

    for number in _at_most(rounds, 10.0):
        began = time.perf_counter()
        workspace = await driver.open(f"measured {number}", source, b"", LIMITS)
        took["open"].append(time.perf_counter() - began)
        for name in ("diff", "checkpoint"):
            began = time.perf_counter()
            await driver.diff(workspace, LIMITS)
            took[name].append(time.perf_counter() - began)
            await driver.run(workspace, ExecSpec(("sh", "-c", "echo 2 >>src/module_1.py"), limits=LIMITS), discard)
        await driver.close(workspace)
    return {f"workspace {name} p50 ms": statistics.median(values) * 1000 for name, values in took.items()}


def _at_most(rounds: int, seconds: float) -> Iterator[int]:
    """At least one: a busy machine gives fewer samples, not a longer wait."""
    until = time.perf_counter() + seconds
    for number in range(rounds):
        yield number
        if time.perf_counter() > until:
            return


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * 99 // 100)]


def report(found: Mapping[str, float]) -> int:
    """Prints every figure; returns how many bounds were missed."""
    missed = 0
    for name, value in found.items():
        bound = BOUNDS.get(name)
        words = "" if bound is None else f"   at most {bound:g}: {'kept' if value <= bound else 'MISSED'}"
        missed += bound is not None and value > bound
        print(f"  {name:42} {value:9.2f}{words}", flush=True)
    print(f"\n{missed} bounds missed" if missed else "\nall bounds kept")
    return missed


def main() -> int:
    if os.geteuid() != 0:
        print("bench-sandbox needs root, as sandboxes of level 2 do", file=sys.stderr)
        return 2
    try:
        return 1 if report(asyncio.run(measure(100))) else 0
    except SandboxUnavailable as unavailable:
        print(f"no sandbox to measure: {unavailable}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
