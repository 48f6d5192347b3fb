"""Builds the argument list of bubblewrap: what a sandbox sees, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

WORKSPACE = "/workspace"
HOME = "/home/agent"
_INNER_UID = 1000
_SMALL_TMPFS_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Bind:
    """A host path shown at `target` inside."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every sandbox of this machine sees beside its workspace.

    `top_level`: bubblewrap options that lay out /usr and its aliases. `masks`: (empty host path, path under /proc).
    """

    top_level: tuple[str, ...]
    etc: Path
    masks: tuple[tuple[Path, str], ...]
    tools: tuple[Bind, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Box:
    """One sandbox: the command and what it may touch. `max_processes` is for machines without a group limit."""

    command: tuple[str, ...]
    workspace: Path
    writable: bool = True
    directory: str = WORKSPACE
    environment: Mapping[str, str] = field(default_factory=dict)
    binds: tuple[Bind, ...] = ()
    tmp_bytes: int = 256 << 20
    max_processes: int | None = None


def build(bwrap: str, box: Box, around: Surroundings, *, status: int, filters: Sequence[int]) -> list[str]:
    """The whole argument list. Raises `ValueError` for a mount whose target somebody inside could have replaced."""
    binds = (*around.tools, *box.binds)
    for bind in binds:
        _check_target(bind.target)
    return [
        bwrap,
        *_isolation(),
        *_environment({**around.environment, **box.environment}),
        *around.top_level,
        *("--ro-bind", str(around.etc), "/etc"),
        *_memory_file_systems(box.tmp_bytes),
        *(word for source, target in around.masks for word in ("--ro-bind", str(source), target)),
        *(
            word
            for bind in binds
            for word in ("--bind" if bind.writable else "--ro-bind", str(bind.source), bind.target)
        ),
        *("--bind" if box.writable else "--ro-bind", str(box.workspace), WORKSPACE),
        *("--remount-ro", "/"),
        *("--chdir", box.directory),
        *(word for handle in filters for word in ("--add-seccomp-fd", str(handle))),
        *("--json-status-fd", str(status)),
        "--",
        *_shell(box.max_processes),
        *box.command,
    ]


def _isolation() -> list[str]:
    # Each namespace by name: --unshare-all settles for less where the kernel refuses, and says nothing.
    return [
        *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup"),
        *("--uid", str(_INNER_UID), "--gid", str(_INNER_UID), "--hostname", "sandbox"),
        *("--die-with-parent", "--new-session", "--cap-drop", "ALL", "--disable-userns"),
    ]


def _environment(values: Mapping[str, str]) -> list[str]:
    words = ["--clearenv"]
    for name, value in values.items():
        words += ["--setenv", name, value]
    return words


def _memory_file_systems(tmp_bytes: int) -> list[str]:
    small = str(_SMALL_TMPFS_BYTES)
    return [
        *("--proc", "/proc", "--dev", "/dev"),
        *("--size", small, "--perms", "1777", "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),  # noqa: S108
        *("--size", str(tmp_bytes), "--perms", "1777", "--tmpfs", "/tmp"),  # noqa: S108
        *("--size", small, "--perms", "0700", "--tmpfs", HOME),
        *("--dir", "/run", "--dir", "/var", "--symlink", "../tmp", "/var/tmp"),  # noqa: S108
    ]


def _shell(max_processes: int | None) -> list[str]:
    """The shell gives 126 and 127 their usual meaning, and sets the limit that only counts inside."""
    limit = "" if max_processes is None else f"ulimit -p {max_processes} && "
    return ["/bin/sh", "-c", f'{limit}exec "$@"', "sh"]


def _check_target(target: str) -> None:
    path = PurePosixPath(target)
    below = any(path == PurePosixPath(top) or PurePosixPath(top) in path.parents for top in (WORKSPACE, "/tmp", HOME))  # noqa: S108
    if not path.is_absolute() or ".." in path.parts or below or len(path.parts) < 2:
        raise ValueError(f"nothing may be mounted at {target}")
