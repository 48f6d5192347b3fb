"""The sandbox driver on bubblewrap: namespaces, two seccomp filters, control groups and an unprivileged slot user.

Level KERNEL needs a worker that runs as root. Level RLIMIT works for any user but limits each process alone, and has to
be asked for.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess  # nosec: asks bubblewrap for its version
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from codeagent.sandboxes import argv, images, machine, processes, seccomp
from codeagent.sandboxes.box import WORKSPACE, Box, Surroundings
from codeagent.sandboxes.images import NO_IMAGES
from codeagent.sandboxes.launcher import Launcher, ParkedProgram, Place, Program
from codeagent.sandboxes.local import SLOT_UIDS, LocalDriver
from codeagent.sandboxes.processes import Pipes, ReportingChild
from codeagent.sandboxes.protocol import IsolationLevel, Limits, SandboxUnavailable
from codeagent.sandboxes.sources import TrustedHost

_OLDEST = (0, 8, 0)
_MOST_TOLD_BYTES = 60_000
"""What fits into a pipe, and leaves the command below the kernel's bound on one variable."""


class Bubblewrap:
    """See `Engine`."""

    name = "bwrap"

    def __init__(
        self,
        state_dir: Path,
        level: IsolationLevel,
        tools: Sequence[Path] = (),
        program: str | None = None,
        images: Mapping[str, str] = NO_IMAGES,
    ) -> None:
        self.state_dir = state_dir.absolute()
        self.level = level
        self.tools = tuple(tools)
        self.images = images
        self._program = program or "bwrap"

    def missing(self) -> list[str]:
        if self.level not in (IsolationLevel.RLIMIT, IsolationLevel.KERNEL):
            return [f"bubblewrap cannot isolate at level {self.level.name}"]
        return [*self._program_reasons(), *machine.missing(self.level, self.tools), *images.unusable_roots(self.images)]

    def _program_reasons(self) -> list[str]:
        path = shutil.which(self._program)
        if path is None:
            return ["bubblewrap is missing: apt-get install bubblewrap"]
        if Path(path).stat().st_mode & stat.S_ISUID:
            return [f"{path} is setuid root, which it need not be: chmod u-s {path}"]
        if _version(path) < _OLDEST:
            return [f"{path} is too old or does not start: bubblewrap 0.8.0 or newer is needed"]
        return []

    def version(self) -> str:
        return ".".join(map(str, _version(self._program)))

    def hints(self) -> list[str]:
        if machine.setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
            return ["AppArmor may be in the way: give bwrap a profile that allows userns"]
        return []

    def prepare(self) -> Launcher:
        program = shutil.which(self._program)
        if program is None:
            raise SandboxUnavailable(self._program_reasons())
        around = machine.surroundings_of(self.state_dir, self.tools, self.images)
        filters = seccomp.write_programs(machine.directory(self.state_dir / "seccomp"))
        return BubblewrapLauncher(program, around, filters)


class BubblewrapLauncher:
    """See `Launcher` and `ParkingLauncher`. `around`: what sandboxes see, by the name of their image."""

    def __init__(self, program: str, around: Mapping[str, Surroundings], filters: tuple[Path, Path]) -> None:
        self._program = program
        self._around = around
        self._filters = filters

    def room(self, limits: Limits) -> Limits:
        return limits

    def start(self, box: Box, limits: Limits, place: Place, pipes: Pipes) -> Program:
        with _report() as (reading, status), _opened(self._filters) as filters:
            words = argv.build(self._program, box, self._around[box.image], status=status, filters=filters)
            return ReportingChild(_start(words, limits, place, pipes, (status, *filters)), reading)

    def park(self, limits: Limits, place: Place, pipes: Pipes) -> ParkedProgram:
        waiting, telling = os.pipe()
        try:
            with _report() as (reading, status), _opened(self._filters) as filters:
                words = argv.parked(self._program, status=status, filters=filters, told=waiting)
                process = _start(words, limits, place, pipes, (status, *filters, waiting))
                return ParkedChild(process, reading, telling, self._around)
        except BaseException:
            os.close(telling)
            raise
        finally:
            os.close(waiting)

    def policy_digest(self, image: str) -> str:
        seen = hashlib.sha256()
        for path in self._filters:
            seen.update(hashlib.sha256(path.read_bytes()).digest())
        box = Box(command=(), workspace=Path(WORKSPACE))
        for word in argv.build("bwrap", box, self._around[image], status=0, filters=()):
            seen.update(word.encode("utf-8", "surrogateescape") + b"\0")
        return f"sha256:{seen.hexdigest()}"

    def close(self) -> None:
        """Nothing is held."""


class ParkedChild(ReportingChild):
    """See `ParkedProgram`. bubblewrap reads its options from a pipe, and does nothing before that is closed."""

    def __init__(
        self, process: subprocess.Popen[bytes], report: int, telling: int, around: Mapping[str, Surroundings]
    ) -> None:
        super().__init__(process, report)
        self._telling = telling
        self._around = around
        self._claimed = False
        os.set_blocking(telling, False)

    def claim(self, box: Box) -> bool:
        if argv.COMMAND in box.environment:
            return False
        words = argv.told_to_parked(box, self._around[box.image])
        try:
            # An empty pipe takes them at once, or not at all; the program reads when it has come that far.
            if len(words) > _MOST_TOLD_BYTES or os.write(self._telling, words) < len(words):
                return False
        except OSError:
            return False
        self._let_go()
        return True

    def _let_go(self) -> None:
        if not self._claimed:
            self._claimed = True
            os.close(self._telling)

    def _close(self) -> None:
        super()._close()
        self._let_go()


class BubblewrapDriver(LocalDriver):
    """See `LocalDriver`. `level`: `None` takes KERNEL."""

    reaches_out = True

    def __init__(  # noqa: PLR0913  all that its operator decides
        self,
        state_dir: Path,
        level: IsolationLevel | None = None,
        runtimes: Sequence[Path] = (),
        slot_uids: range = SLOT_UIDS,
        bwrap_path: str | None = None,
        cgroup_parent: Path | None = None,
        trusted_hosts: Sequence[TrustedHost] = (),
        *,
        parked: bool = True,
        images: Mapping[str, str] = NO_IMAGES,
    ) -> None:
        level = IsolationLevel.KERNEL if level is None else level
        engine = Bubblewrap(state_dir, level, runtimes, bwrap_path, images)
        super().__init__(engine, slot_uids, cgroup_parent, trusted_hosts, parked=parked)


def _start(
    words: Sequence[str], limits: Limits, place: Place, pipes: Pipes, inherited: Sequence[int]
) -> subprocess.Popen[bytes]:
    before = processes.prelude(place.join, place.slot_uid, limits, bound_data=not place.join)
    return processes.start((*before, *words), pipes, inherited)


@contextmanager
def _report() -> Iterator[tuple[int, int]]:
    """A pipe for what bubblewrap reports. Its reading end is the caller's, unless the body raises."""
    reading, status = os.pipe()
    try:
        yield reading, status
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(status)


def _version(path: str) -> tuple[int, ...]:
    """(0, 8, 0), or () if the program does not say. Blocking."""
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", answer.stdout)
    return tuple(int(number) for number in found.groups()) if found else ()


@contextmanager
def _opened(paths: tuple[Path, ...]) -> Iterator[list[int]]:
    handles: list[int] = []
    try:
        handles.extend(os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths)
        yield handles
    finally:
        for handle in handles:
            os.close(handle)
