"""Finds out what this machine offers for bubblewrap, says what is missing, and prepares what every sandbox shares."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import stat
import subprocess  # nosec: asks bubblewrap for its version
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codeagent.sandboxes import cgroup_layout, processes, rootfs, runtime, seccomp
from codeagent.sandboxes.argv import HOME, Bind, Surroundings
from codeagent.sandboxes.cgroups import ControlGroups
from codeagent.sandboxes.execution import Machine
from codeagent.sandboxes.protocol import IsolationLevel, SandboxUnavailable

_OLDEST_BWRAP = (0, 8, 0)
_PROGRAM_DIRECTORIES = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True)
class Needs:
    """What a driver was told by its owner. `tools`: host directories of further programs, shown at the same place."""

    state_dir: Path
    level: IsolationLevel
    tools: tuple[Path, ...] = ()
    bwrap: str | None = None
    cgroup_parent: Path | None = None


def missing(needs: Needs) -> list[str]:
    """Why sandboxes of that level cannot work here, as far as that shows without starting one. Blocking."""
    if not sys.platform.startswith("linux"):
        return ["sandboxes need Linux"]
    if needs.level not in (IsolationLevel.RLIMIT, IsolationLevel.KERNEL):
        return [f"bubblewrap cannot isolate at level {needs.level.name}"]
    is_root = os.geteuid() == 0
    reasons = _bwrap_reasons(needs.bwrap)
    if needs.level is IsolationLevel.KERNEL and not is_root:
        reasons.append("level 2 needs root, for control groups and slot users: start it as root")
    if is_root and shutil.which("setpriv") is None:
        reasons.append("setpriv is missing: apt-get install util-linux")
    if not Path("/usr/bin/git").exists() and not Path("/usr/local/bin/git").exists():
        reasons.append("git is missing from /usr: apt-get install git")
    if _setting("/proc/sys/user/max_user_namespaces") == "0":
        reasons.append("user namespaces are turned off: sysctl user.max_user_namespaces=10000")
    if not is_root and _setting("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        reasons.append("unprivileged user namespaces are turned off: sysctl kernel.unprivileged_userns_clone=1")
    reasons += [f"there is no directory {path}" for path in needs.tools if not path.is_dir()]
    return reasons


def _bwrap_reasons(named: str | None) -> list[str]:
    path = find_bwrap(named)
    if path is None:
        return ["bubblewrap is missing: apt-get install bubblewrap"]
    if Path(path).stat().st_mode & stat.S_ISUID:
        return [f"{path} is setuid root, which it need not be: chmod u-s {path}"]
    version = bwrap_version(path)
    if version < _OLDEST_BWRAP:
        return [f"{path} is too old or does not start: bubblewrap 0.8.0 or newer is needed"]
    return []


def hints() -> list[str]:
    """What may keep a sandbox from starting although nothing is missing. Blocking."""
    if _setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        return ["AppArmor may be in the way: give bwrap a profile that allows userns"]
    return []


def find_bwrap(named: str | None) -> str | None:
    return shutil.which(named or "bwrap")


def bwrap_version(path: str) -> tuple[int, ...]:
    """(0, 8, 0), or () if the program does not say. Blocking."""
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", answer.stdout)
    return tuple(int(number) for number in found.groups()) if found else ()


def _setting(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def lock(state_dir: Path) -> int:
    """Makes `state_dir` this process's own; returns the descriptor that holds it. Raises `SandboxUnavailable`."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        handle = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SandboxUnavailable([f"{state_dir} cannot be used: {error.strerror}"]) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise SandboxUnavailable([f"{state_dir} belongs to another worker: give each its own"]) from None
    return handle


def prepare(needs: Needs) -> Machine:
    """Lays out everything sandboxes share below the state directory, which must be locked. Blocking, up to seconds
    when the Python runtime has to be built. Raises `SandboxUnavailable` with every reason known."""
    reasons = missing(needs)
    bwrap = find_bwrap(needs.bwrap)
    if reasons or bwrap is None:
        raise SandboxUnavailable(reasons)
    processes.become_subreaper()
    root = needs.state_dir
    _make_reachable(root)
    groups = None
    if needs.level is IsolationLevel.KERNEL:
        groups = ControlGroups(cgroup_layout.find_trees(parent=needs.cgroup_parent), _group_name(root))
        groups.prepare()
    try:
        python = runtime.prepare(root / "runtime")
        shared = _directory(root / "shared")
        around = Surroundings(
            top_level=rootfs.top_level(),
            etc=rootfs.write_etc(root / "etc"),
            masks=rootfs.covers(shared),
            tools=(*python.binds, *_alternatives(), *(Bind(path.resolve(), str(path)) for path in needs.tools)),
            environment={**_environment(python, needs.tools), **python.environment},
        )
        filters = seccomp.write_programs(_directory(root / "seccomp"))
    except OSError as error:
        raise SandboxUnavailable([f"{root} cannot be prepared: {error}"]) from error
    return Machine(bwrap, around, filters, groups)


def _environment(python: runtime.Runtime, tools: Sequence[Path]) -> dict[str, str]:
    programs = [str(path / "bin") for path in tools if (path / "bin").is_dir()]
    return {
        "PATH": ":".join([*python.program_directories, *programs, _PROGRAM_DIRECTORIES]),
        "HOME": HOME,
        "USER": "agent",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",  # noqa: S108  # the sandbox's own
    }


def _alternatives() -> tuple[Bind, ...]:
    return (Bind(rootfs.ALTERNATIVES, str(rootfs.ALTERNATIVES)),) if rootfs.ALTERNATIVES.is_dir() else ()


def _make_reachable(root: Path) -> None:
    """Slot users must be able to pass through to what is bound for them; reading directories is not needed."""
    root.chmod(0o711)
    barrier = rootfs.unreachable(root)
    if os.geteuid() == 0 and barrier is not None:
        raise SandboxUnavailable(
            [f"slot users cannot reach {root}: choose a directory below /var/lib, or chmod o+x {barrier}"]
        )


def _directory(path: Path) -> Path:
    path.mkdir(mode=0o755, exist_ok=True)
    path.chmod(0o755)
    return path


def _group_name(root: Path) -> str:
    return "codeagent-" + hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]
