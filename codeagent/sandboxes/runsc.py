"""The sandbox driver on gVisor's runsc: commands run on a kernel of their own, written in Go, never on the machine's.

What surrounds that kernel is confined as well, should it be broken out of: a user namespace with two unprivileged users
of the machine, namespaces without network or other processes, the control group, and runsc's own system call filters.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess  # nosec: asks runsc for its version, and makes user namespaces
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from codeagent.sandboxes import images, machine, oci, processes
from codeagent.sandboxes.box import INNER_UID, WORKSPACE, Box, Surroundings
from codeagent.sandboxes.images import NO_IMAGES
from codeagent.sandboxes.launcher import Launcher, Place, Program
from codeagent.sandboxes.local import SLOT_UIDS, LocalDriver
from codeagent.sandboxes.processes import Child, Pipes
from codeagent.sandboxes.protocol import IsolationLevel, Limits, SandboxFailure, SandboxUnavailable
from codeagent.sandboxes.sources import TrustedHost
from codeagent.sandboxes.volumes import remove_tree

KERNEL_UID_OFFSET = 100_000
"""Added to a slot's uid, the uid runsc itself has on the machine while commands of the slot run."""

_OLDEST = 20240101
_KERNEL_BYTES = 64 << 20
_KERNEL_TASKS = 192
_NOTE = re.compile(rb"[DIW]\d{4} \d\d:\d\d:\d\d")
_PANIC_BYTES = 1 << 20
_TASKS_A_PROCESS = 4
"""Threads of the machine that one process inside may take."""


class Runsc:
    """See `Engine`."""

    name = "runsc"
    level = IsolationLevel.OWN_KERNEL

    def __init__(
        self,
        state_dir: Path,
        tools: Sequence[Path] = (),
        program: str | None = None,
        images: Mapping[str, str] = NO_IMAGES,
    ) -> None:
        self.state_dir = state_dir.absolute()
        self.tools = tuple(tools)
        self.images = images
        self._program = program or "runsc"

    def missing(self) -> list[str]:
        reasons = self._program_reasons()
        for tool in ("unshare", "nsenter"):
            if shutil.which(tool) is None:
                reasons.append(f"{tool} is missing: apt-get install util-linux")
        return [*reasons, *machine.missing(self.level, self.tools), *images.unusable_roots(self.images)]

    def _program_reasons(self) -> list[str]:
        path = shutil.which(self._program)
        if path is None:
            return ["runsc is missing: install gVisor's runsc of 2024 or later (make setup-gvisor)"]
        if _release(self.version()) < _OLDEST:
            return [f"{path} is too old or does not start: runsc of 2024 or later is needed (make setup-gvisor)"]
        return []

    def version(self) -> str:
        try:
            answer = subprocess.run(
                [self._program, "--version"], capture_output=True, text=True, check=False, timeout=10
            )
        except (OSError, subprocess.SubprocessError):
            return ""
        found = re.search(r"runsc version (\S+)", answer.stdout)
        return found.group(1) if found else ""

    def hints(self) -> list[str]:
        return []

    def prepare(self) -> Launcher:
        program = shutil.which(self._program)
        if program is None:
            raise SandboxUnavailable(self._program_reasons())
        around = machine.surroundings_of(self.state_dir, self.tools, self.images)
        remove_bundles(self.state_dir)
        bundles = bundles_of(self.state_dir)
        bundles.mkdir(mode=0o711)
        bundles.chmod(0o711)
        return RunscLauncher(program, around, bundles)


def bundles_of(state_dir: Path) -> Path:
    return state_dir.absolute() / "bundles"


def remove_bundles(state_dir: Path) -> None:
    """Removes what a worker that died has left of its kernels: those that still run, and their bundles, in which each
    has its root directory, so that no `runsc list` knows them any more. For whoever holds the state directory's lock.
    Blocking."""
    bundles = bundles_of(state_dir)
    for pid in processes.strays(f"--root={bundles}/", "runsc", "runsc-sandbox", "runsc-gofer"):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    remove_tree(bundles)


class RunscLauncher:
    """See `Launcher`. Each program has a bundle of its own below `bundles`, and two users of the machine: the slot,
    which is the user inside and owns the files, and one for runsc. `around`: what sandboxes see, by their image."""

    def __init__(self, program: str, around: Mapping[str, Surroundings], bundles: Path) -> None:
        self._program = program
        self._around = around
        self._bundles = bundles
        self._users: dict[int, int] = {}

    def room(self, limits: Limits) -> Limits:
        memory = limits.memory_bytes + _KERNEL_BYTES
        return replace(limits, memory_bytes=memory, processes=limits.processes * _TASKS_A_PROCESS + _KERNEL_TASKS)

    def start(self, box: Box, limits: Limits, place: Place, pipes: Pipes) -> Program:
        if place.slot_uid is None:
            raise SandboxFailure("runsc needs slot users", retryable=False)
        bundle = self._bundles / place.name
        try:
            users = self._user_namespace(place.slot_uid)
            bundle.mkdir(mode=0o755)
            bundle.chmod(0o755)
            oci.write_bundle(bundle, box, self._around[box.image], limits)
            state = bundle / "state"
            state.mkdir(mode=0o700)
            os.chown(state, place.slot_uid + KERNEL_UID_OFFSET, place.slot_uid + KERNEL_UID_OFFSET)
            words = (*_join(place.join), *_confined(users), *_runsc(self._program, bundle, box))
            return _RunscProgram(processes.start(words, pipes, (users,)), bundle)
        except OSError as error:
            remove_tree(bundle)
            raise SandboxFailure(f"a bundle cannot be written: {error.strerror}") from error
        except BaseException:
            remove_tree(bundle)
            raise

    def policy_digest(self, image: str) -> str:
        box, bundle = Box(command=(), workspace=Path(WORKSPACE)), Path("/bundle")
        config = oci.configuration(bundle / "root", box, self._around[image], Limits())
        words = (*_confined(0), *_runsc("runsc", bundle, box), json.dumps(config))
        return f"sha256:{hashlib.sha256(os.fsencode(chr(0).join(words))).hexdigest()}"

    def close(self) -> None:
        while self._users:
            os.close(self._users.popitem()[1])

    def _user_namespace(self, slot_uid: int) -> int:
        """A descriptor of the slot's user namespace: users inside are `INNER_UID`, the slot, and 0, runsc."""
        if slot_uid not in self._users:
            self._users[slot_uid] = _make_user_namespace({0: slot_uid + KERNEL_UID_OFFSET, INNER_UID: slot_uid})
        return self._users[slot_uid]


class _RunscProgram(Child):
    """A `runsc run`. All its processes are in a pid namespace whose first process belongs to the program's group."""

    def __init__(self, process: subprocess.Popen[bytes], bundle: Path) -> None:
        super().__init__(process)
        self._bundle = bundle
        self._ran = False

    @property
    def exit_code(self) -> int | None:
        return self.status if self._ran and self.status is not None and self.status >= 0 else None

    def _close(self) -> None:
        super()._close()
        # Its own failures have exit codes like those of commands. But then there is no pid yet, or an error in a log.
        state = self._bundle / "state"
        self._ran = (state / "pid").exists() and not _size(state / "log") and not _panicked(state / "panic")
        remove_tree(self._bundle)


class RunscDriver(LocalDriver):
    """See `LocalDriver`."""

    reaches_out = True

    def __init__(
        self,
        state_dir: Path,
        runtimes: Sequence[Path] = (),
        slot_uids: range = SLOT_UIDS,
        runsc_path: str | None = None,
        cgroup_parent: Path | None = None,
        trusted_hosts: Sequence[TrustedHost] = (),
        images: Mapping[str, str] = NO_IMAGES,
    ) -> None:
        super().__init__(Runsc(state_dir, runtimes, runsc_path, images), slot_uids, cgroup_parent, trusted_hosts)


def _join(files: Sequence[Path]) -> tuple[str, ...]:
    steps = [*processes.joining(files), "umask 022", 'exec "$@"']
    return ("/bin/sh", "-ec", "\n".join(steps), "sandbox")


def _confined(users: int) -> tuple[str, ...]:
    """Each dies with the one before it: this process, the pid namespace's maker, its first process."""
    return (
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--net", "--ipc", "--uts", "--"),
        *("nsenter", f"--user=/proc/self/fd/{users}", "--setuid", "0", "--setgid", "0", "--"),
        *("setpriv", "--pdeathsig", "KILL", "--no-new-privs", "--"),
    )


def _runsc(program: str, bundle: Path, box: Box) -> tuple[str, ...]:
    # Sockets of the machine are within reach only where one is shown, as to what has a way out; none can be made.
    sockets = "open" if any(bind.source.is_socket() for bind in box.binds) else "none"
    return (
        program,
        # Without groups, mounts and network of runsc's own making: all are made already.
        *("--rootless", "--ignore-cgroups", "--network=none", "--platform=systrap", "--overlay2=none"),
        *(f"--host-uds={sockets}", f"--root={bundle}/state"),
        *(f"--log={bundle}/state/log", "--log-format=json", f"--panic-log={bundle}/state/panic"),
        *("run", f"--bundle={bundle}", f"--pid-file={bundle}/state/pid", bundle.name),
    )


def _make_user_namespace(users: dict[int, int]) -> int:
    """A descriptor of a new user namespace with `users`, inside -> outside. Raises `OSError`."""
    words = ("unshare", "--user", "/bin/sh", "-c", "echo; read -r _")
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        lines = "".join(f"{inside} {outside} 1\n" for inside, outside in users.items())
        for kind in ("uid_map", "gid_map"):
            Path(f"/proc/{holder.pid}/{kind}").write_text(lines)
        return os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)


def _release(version: str) -> int:
    """20240729 of "0.0~20240729.0" and "release-20240729.0"; 0 if there is none."""
    found = re.search(r"\d{8}", version)
    return int(found.group()) if found else 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _panicked(path: Path) -> bool:
    """Whether the kernel inside has crashed. What it has refused to programs is noted in that file as well."""
    try:
        with path.open("rb") as file:
            return any(_NOTE.match(line) is None for line in file.read(_PANIC_BYTES).splitlines())
    except FileNotFoundError:
        return False
