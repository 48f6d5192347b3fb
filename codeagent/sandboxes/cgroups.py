"""Control groups: one for each operation, in whatever layout the machine has (v2, v1, or v1 with a v2 tree beside)."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from codeagent.sandboxes.protocol import Limits, SandboxFailure, SandboxUnavailable

_PERIOD_MICROSECONDS = 100_000
_LAUNCHER_TASKS = 3
"""The sandbox program itself and its first process count in the group, not in what the command may start."""

_STAYING_TASKS = 2
"""Of these, the ones that are there while the command runs."""

CONTROLLERS = ("memory", "pids", "cpu")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a group used. `oom_kills` and `pids_refused` count events since it was made; `throttled_seconds` is how long
    its processes had to wait for their share of the processor."""

    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    oom_kills: int = 0
    pids_refused: int = 0
    throttled_seconds: float = 0.0
    peak_processes: int = 0


@dataclass(frozen=True, slots=True)
class Trees:
    """Where groups are made, by controller. With v2 all are one directory. `unified` and `cpuacct` may be missing."""

    version: int
    memory: Path
    pids: Path
    cpu: Path
    unified: Path | None = None
    cpuacct: Path | None = None

    @property
    def directories(self) -> tuple[Path, ...]:
        # The tree that kills comes first: a process joins in this order.
        every = (self.unified, self.memory, self.pids, self.cpu, self.cpuacct)
        return tuple(dict.fromkeys(path for path in every if path is not None))

    def below(self, name: str) -> Trees:
        def down(path: Path | None) -> Path | None:
            return None if path is None else path / name

        return replace(
            self,
            memory=self.memory / name,
            pids=self.pids / name,
            cpu=self.cpu / name,
            unified=down(self.unified),
            cpuacct=down(self.cpuacct),
        )


class ControlGroups:
    """Makes, lists and removes the groups of one worker, all below one parent group called `name`."""

    def __init__(self, trees: Trees, name: str) -> None:
        self._base = trees.below(name)

    def prepare(self) -> None:
        """Makes the parent group. Raises `SandboxUnavailable` if this process may not."""
        try:
            for directory in self._base.directories:
                directory.mkdir(exist_ok=True)
            if self._base.version == 2:
                enable(self._base.memory, CONTROLLERS)
        except OSError as error:
            raise SandboxUnavailable(
                [f"control groups cannot be made below {error.filename}: {error.strerror}"]
            ) from None

    def retire(self) -> None:
        """Removes the parent group, if nothing is in it any more."""
        for directory in self._base.directories:
            with suppress(OSError):
                directory.rmdir()

    def create(self, name: str, limits: Limits) -> Group:
        """A new group with `limits` set. Raises `SandboxFailure` if the kernel refuses any of them."""
        group = Group(self._base.below(name))
        try:
            group.create(limits)
        except OSError as error:
            group.remove(within_seconds=1.0)
            raise SandboxFailure(f"the limits of a command could not be set: {error.strerror}") from error
        return group

    def leftovers(self, prefix: str = "") -> list[Group]:
        """Groups below the parent whose name begins with `prefix`, whoever made them."""
        names: set[str] = set()
        for directory in self._base.directories:
            with suppress(FileNotFoundError):
                names |= {child.name for child in directory.iterdir() if child.is_dir()}
        return [Group(self._base.below(name)) for name in sorted(names) if name.startswith(prefix)]


class Group:
    """The control group of one operation."""

    def __init__(self, trees: Trees) -> None:
        self._trees = trees
        self._events: dict[Path, int] = {}

    @property
    def name(self) -> str:
        return self._trees.memory.name

    @property
    def procs_files(self) -> tuple[Path, ...]:
        """Files a process writes its pid to, to be in the group."""
        return tuple(directory / "cgroup.procs" for directory in self._trees.directories)

    def create(self, limits: Limits) -> None:
        for directory in self._trees.directories:
            directory.mkdir()
        for path, value, required in _settings(self._trees, limits):
            if required or path.exists():
                path.write_text(value)

    def kill(self) -> None:
        """Ends every process of the group, forks under way included. Returns before they are gone."""
        for directory in self._trees.directories:
            with suppress(OSError):
                (directory / "cgroup.kill").write_text("1")
                return
        with suppress(OSError):
            (self._trees.pids / "pids.max").write_text("0")
        self._signal_each()

    def _signal_each(self) -> None:
        for directory in self._trees.directories:
            for pid in _pids(directory):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    @property
    def empty(self) -> bool:
        return not any(_pids(directory) for directory in self._trees.directories)

    def usage(self) -> Usage:
        """Figures so far; those the kernel does not offer are zero. Groups that a sandbox program makes below count."""
        if self._trees.version == 2:
            peak = _number(self._trees.memory / "memory.peak")
            oom = self._count(self._trees.memory, "memory.events", "oom_kill")
            throttled = _field(self._trees.cpu / "cpu.stat", "throttled_usec") / 1e6
        else:
            peak = _number(self._trees.memory / "memory.max_usage_in_bytes")
            oom = self._count(self._trees.memory, "memory.oom_control", "oom_kill")
            throttled = _field(self._trees.cpu / "cpu.stat", "throttled_time") / 1e9
        if self._trees.unified is not None:
            cpu = _field(self._trees.unified / "cpu.stat", "usage_usec") / 1e6
        else:
            cpu = _number((self._trees.cpuacct or self._trees.cpu) / "cpuacct.usage") / 1e9
        refused = self._count(self._trees.pids, "pids.events", "max")
        processes = max(0, _number(self._trees.pids / "pids.peak") - _STAYING_TASKS)
        return Usage(cpu, peak, oom, refused, throttled, processes)

    def _count(self, directory: Path, file: str, field: str) -> int:
        """Events of the group, and of those right below: with v1 only these tell, and they go with their container."""
        for path in (directory / file, *directory.glob(f"*/{file}")):
            self._events[path] = max(self._events.get(path, 0), _field(path, field))
        # With v2 a group's own events include those below.
        return max((count for path, count in self._events.items() if path.name == file), default=0)

    def remove(self, *, within_seconds: float = 0.0) -> bool:
        """Kills what is left, and removes the group. Returns whether it is gone. Blocks up to `within_seconds`."""
        deadline = time.monotonic() + within_seconds
        while True:
            left = [directory for directory in self._trees.directories if not _removed(directory)]
            if not left:
                return True
            self.kill()
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)


def _settings(trees: Trees, limits: Limits) -> list[tuple[Path, str, bool]]:
    """(file, value, whether the group is refused without it), in the order of writing."""
    quota = max(1000, int(limits.cpu_cores * _PERIOD_MICROSECONDS))
    tasks = str(limits.processes + _LAUNCHER_TASKS)
    memory = str(limits.memory_bytes)
    if trees.version == 2:
        return [
            (trees.memory / "memory.max", memory, True),
            (trees.memory / "memory.swap.max", "0", False),
            (trees.memory / "memory.oom.group", "1", False),
            (trees.pids / "pids.max", tasks, True),
            (trees.cpu / "cpu.max", f"{quota} {_PERIOD_MICROSECONDS}", True),
        ]
    return [
        (trees.memory / "memory.limit_in_bytes", memory, True),
        (trees.memory / "memory.memsw.limit_in_bytes", memory, False),
        (trees.pids / "pids.max", tasks, True),
        (trees.cpu / "cpu.cfs_period_us", str(_PERIOD_MICROSECONDS), True),
        (trees.cpu / "cpu.cfs_quota_us", str(quota), True),
    ]


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _pids(directory: Path) -> list[int]:
    try:
        return [int(line) for line in (directory / "cgroup.procs").read_text().split()]
    except (FileNotFoundError, OSError):
        return []


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _field(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), 0)


def enable(group: Path, controllers: tuple[str, ...]) -> None:
    """Lets children of a v2 group be limited. Raises `OSError`, also when a controller is not there at all."""
    if set(controllers) <= set((group / "cgroup.subtree_control").read_text().split()):
        return
    wanted = " ".join(f"+{name}" for name in controllers)
    (group / "cgroup.subtree_control").write_text(wanted)
