"""Writes the bundle an OCI runtime is started with: what a sandbox sees, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codeagent.sandboxes.box import (
    HOME,
    INNER_UID,
    SMALL_TMPFS_BYTES,
    WORKSPACE,
    Bind,
    Box,
    Link,
    Surroundings,
    check_target,
)
from codeagent.sandboxes.protocol import Limits

_VERSION = "1.0.2"
_NAMESPACES = ("pid", "network", "ipc", "uts", "mount")
_MEMLOCK_BYTES = 64 << 10


def write_bundle(bundle: Path, box: Box, around: Surroundings, limits: Limits) -> None:
    """Writes config.json and the root directory below `bundle`, which is there. Blocking, a millisecond.

    Raises `OSError`, and `ValueError` for a mount whose target somebody inside could have replaced.
    """
    binds = (*around.tools, *box.binds)
    for bind in binds:
        check_target(bind.target)
    root = bundle / "root"
    root.mkdir(mode=0o755)
    links = [part for part in around.top_level if isinstance(part, Link)]
    for link in (*links, Link("../tmp", "/var/tmp")):  # noqa: S108
        _inside(root, link.target).parent.mkdir(parents=True, exist_ok=True)
        _inside(root, link.target).symlink_to(link.text)
    for bind in _shown(box, around):
        _mount_point(root, bind)
    for target in ("/proc", "/dev", "/sys", "/tmp", "/run", HOME, WORKSPACE):  # noqa: S108
        _inside(root, target).mkdir(parents=True, exist_ok=True)
    config = configuration(root, box, around, limits)
    (bundle / "config.json").write_text(json.dumps(config), encoding="utf-8", errors="surrogateescape")
    (bundle / "config.json").chmod(0o644)


def configuration(root: Path, box: Box, around: Surroundings, limits: Limits) -> dict[str, Any]:
    """What config.json says of a sandbox whose root directory is `root`."""
    binds = (_bind(bind) for bind in _shown(box, around))
    return {
        "ociVersion": _VERSION,
        "root": {"path": str(root), "readonly": True},
        "hostname": "sandbox",
        "process": _process(box, around, limits),
        "mounts": [*_memory_file_systems(box.tmp_bytes), *binds, _workspace(box)],
        "linux": {"namespaces": [{"type": name} for name in _NAMESPACES]},
    }


def _shown(box: Box, around: Surroundings) -> tuple[Bind, ...]:
    top_level = (part for part in around.top_level if isinstance(part, Bind))
    return (*top_level, Bind(around.etc, "/etc"), *around.tools, *box.binds)


def _process(box: Box, around: Surroundings, limits: Limits) -> dict[str, Any]:
    return {
        "user": {"uid": INNER_UID, "gid": INNER_UID, "umask": 0o022},
        # The shell gives 126 and 127 their usual meaning.
        "args": ["/bin/sh", "-c", 'exec "$@"', "sh", *box.command],
        "cwd": box.directory,
        "env": [f"{name}={value}" for name, value in box.variables(around.environment).items()],
        "noNewPrivileges": True,
        "capabilities": {},
        "rlimits": list(_limits(limits)),
    }


def _limits(limits: Limits) -> Iterator[dict[str, Any]]:
    values = {
        "CORE": 0,
        "NOFILE": limits.open_files,
        "FSIZE": limits.file_bytes,
        "NPROC": limits.processes,
        "MEMLOCK": _MEMLOCK_BYTES,
    }
    for name, value in values.items():
        yield {"type": f"RLIMIT_{name}", "soft": value, "hard": value}
    # The hard limit lies above the soft one, so that the end shows as SIGXCPU and not as SIGKILL.
    seconds = max(1, limits.cpu_seconds)
    yield {"type": "RLIMIT_CPU", "soft": seconds, "hard": seconds + 2}


def _memory_file_systems(tmp_bytes: int) -> list[dict[str, Any]]:
    own = f"uid={INNER_UID},gid={INNER_UID}".split(",")
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        _tmpfs("/dev/shm", SMALL_TMPFS_BYTES, ["mode=1777"]),  # noqa: S108
        _tmpfs("/tmp", tmp_bytes, ["mode=1777"]),  # noqa: S108
        _tmpfs(HOME, SMALL_TMPFS_BYTES, ["mode=0700", *own]),
    ]


def _tmpfs(target: str, size_bytes: int, options: list[str]) -> dict[str, Any]:
    size = f"size={size_bytes}"
    return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": [*options, size, "nosuid", "nodev"]}


def _bind(bind: Bind) -> dict[str, Any]:
    options = ["rbind", "rw" if bind.writable else "ro", "nosuid", "nodev"]
    return {"destination": bind.target, "type": "bind", "source": str(bind.source), "options": options}


def _workspace(box: Box) -> dict[str, Any]:
    return _bind(Bind(box.workspace, WORKSPACE, writable=box.writable))


def _mount_point(root: Path, bind: Bind) -> None:
    point = _inside(root, bind.target)
    if bind.source.is_dir():
        point.mkdir(parents=True, exist_ok=True)
    else:
        point.parent.mkdir(parents=True, exist_ok=True)
        point.touch()


def _inside(root: Path, target: str) -> Path:
    return root / target.lstrip("/")
