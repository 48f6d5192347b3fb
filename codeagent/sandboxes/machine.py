"""What drivers need of this machine whatever sandbox program they use, and what every sandbox of it shares."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from codeagent.sandboxes import images, processes, rootfs, runtime
from codeagent.sandboxes.box import HOME, Bind, Surroundings
from codeagent.sandboxes.cgroups import ControlGroups, Trees
from codeagent.sandboxes.protocol import DEFAULT_IMAGE, IsolationLevel, SandboxUnavailable


def missing(level: IsolationLevel, tools: Sequence[Path]) -> list[str]:
    """Why sandboxes of that level cannot work here, whatever makes them. Blocking."""
    if not sys.platform.startswith("linux"):
        return ["sandboxes need Linux"]
    reasons = []
    is_root = os.geteuid() == 0
    if level >= IsolationLevel.KERNEL and not is_root:
        reasons.append(f"level {int(level)} needs root, for control groups and slot users: start it as root")
    if is_root and shutil.which("setpriv") is None:
        reasons.append("setpriv is missing: apt-get install util-linux")
    if not Path("/usr/bin/git").exists() and not Path("/usr/local/bin/git").exists():
        reasons.append("git is missing from /usr: apt-get install git")
    if setting("/proc/sys/user/max_user_namespaces") == "0":
        reasons.append("user namespaces are turned off: sysctl user.max_user_namespaces=10000")
    if not is_root and setting("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        reasons.append("unprivileged user namespaces are turned off: sysctl kernel.unprivileged_userns_clone=1")
    reasons += [f"there is no directory {path}" for path in tools if not path.is_dir()]
    return reasons


def setting(path: str) -> str:
    """What the kernel is set to; empty where it has no such setting. Blocking."""
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


def control_groups(state_dir: Path, trees: Trees) -> ControlGroups:
    """The groups of the worker that owns `state_dir`. Blocking. Raises `SandboxUnavailable`."""
    groups = ControlGroups(trees, group_name(state_dir))
    groups.prepare()
    return groups


def surroundings(root: Path, tools: Sequence[Path]) -> Surroundings:
    """Lays out below the state directory what sandboxes share, and makes this process the heir of theirs. Blocking, up
    to seconds when the Python runtime has to be built. Raises `SandboxUnavailable`."""
    processes.become_subreaper()
    try:
        python = runtime.prepare(root / "runtime")
        shared = directory(root / "shared")
        return Surroundings(
            top_level=rootfs.top_level(),
            etc=rootfs.write_etc(root / "etc"),
            masks=rootfs.covers(shared),
            tools=(*python.binds, *_alternatives(), *(Bind(path.resolve(), str(path)) for path in tools)),
            environment={**_environment(python, tools), **python.environment},
        )
    except OSError as error:
        raise SandboxUnavailable([f"{root} cannot be prepared: {error}"]) from error


def surroundings_of(root: Path, tools: Sequence[Path], named: Mapping[str, str]) -> Mapping[str, Surroundings]:
    """As `surroundings`, of every image by its name, the default one included."""
    default = surroundings(root, tools)
    try:
        return {DEFAULT_IMAGE: default, **dict(images.surroundings(default, named, root / "image-etc"))}
    except OSError as error:
        raise SandboxUnavailable([f"the images cannot be prepared: {error}"]) from error


def _environment(python: runtime.Runtime, tools: Sequence[Path]) -> dict[str, str]:
    programs = [str(path / "bin") for path in tools if (path / "bin").is_dir()]
    return {
        "PATH": ":".join([*python.program_directories, *programs, rootfs.PROGRAM_DIRECTORIES]),
        "HOME": HOME,
        "USER": "agent",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",  # noqa: S108  # the sandbox's own
    }


def _alternatives() -> tuple[Bind, ...]:
    return (Bind(rootfs.ALTERNATIVES, str(rootfs.ALTERNATIVES)),) if rootfs.ALTERNATIVES.is_dir() else ()


def make_reachable(root: Path) -> None:
    """Slot users must be able to pass through to what is bound for them; reading directories is not needed."""
    root.chmod(0o711)
    barrier = rootfs.unreachable(root)
    if os.geteuid() == 0 and barrier is not None:
        raise SandboxUnavailable(
            [f"slot users cannot reach {root}: choose a directory below /var/lib, or chmod o+x {barrier}"]
        )


def directory(path: Path) -> Path:
    """Made, and readable by every slot user."""
    path.mkdir(mode=0o755, exist_ok=True)
    path.chmod(0o755)
    return path


def group_name(root: Path) -> str:
    """What belongs to the worker on that state directory is called, where all workers of a machine are seen."""
    return "codeagent-" + hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]
