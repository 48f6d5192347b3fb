"""Finds where this process may make control groups, from what the kernel says about mounts and about itself."""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from codeagent.sandboxes.cgroups import CONTROLLERS, Trees, enable
from codeagent.sandboxes.protocol import SandboxUnavailable

_OWN_LEAF = "codeagent-main"


@dataclass(frozen=True, slots=True)
class _Mount:
    root: str
    point: Path
    version: int
    options: frozenset[str]


def find_trees(
    mountinfo: Path = Path("/proc/self/mountinfo"), own: Path = Path("/proc/self/cgroup"), parent: Path | None = None
) -> Trees:
    """The group this process is in, by controller; groups made below it obey whatever limits it was given.

    `parent`: a v2 group delegated by the operator, used instead. Raises `SandboxUnavailable`.
    """
    if parent is not None:
        return _unified(parent)
    mounts = _mounts(mountinfo)
    groups = _own_groups(own)
    v1 = {name: path for name in (*CONTROLLERS, "cpuacct") if (path := _v1_directory(name, mounts, groups))}
    v2 = next((_inside(mount, groups.get("", "/")) for mount in mounts if mount.version == 2), None)
    if set(CONTROLLERS) <= v1.keys():
        # The v2 tree beside v1 limits nothing, but it alone kills a whole group at once.
        accounting = None if v2 is not None else v1.get("cpuacct")
        return Trees(1, v1["memory"], v1["pids"], v1["cpu"], unified=v2, cpuacct=accounting)
    if v2 is None:
        raise SandboxUnavailable(["no control groups are mounted: mount cgroup2 at /sys/fs/cgroup"])
    return _unified(v2.parent if v2.name == _OWN_LEAF else v2)


def aligned(trees: Trees) -> Trees:
    """The same trees below one path, the longest, in every hierarchy: who is told a group by its path needs that.

    Raises `SandboxUnavailable` if it cannot be made.
    """
    if trees.version == 2:
        return trees
    path = max((group_path(directory) for directory in trees.directories), key=len)

    def moved(directory: Path) -> Path:
        return _hierarchy(directory) / path.lstrip("/")

    try:
        for directory in trees.directories:
            moved(directory).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SandboxUnavailable([f"control groups are not writable: {error.filename}: {error.strerror}"]) from None
    return replace(
        trees,
        memory=moved(trees.memory),
        pids=moved(trees.pids),
        cpu=moved(trees.cpu),
        unified=None if trees.unified is None else moved(trees.unified),
        cpuacct=None if trees.cpuacct is None else moved(trees.cpuacct),
    )


def group_path(directory: Path) -> str:
    """The name of a group within its hierarchy, as in /proc/PID/cgroup."""
    return f"/{directory.relative_to(_hierarchy(directory))}".removesuffix("/.")


def _hierarchy(directory: Path) -> Path:
    return next(folder for folder in (directory, *directory.parents) if folder.is_mount())


def _unified(group: Path) -> Trees:
    try:
        missing = set(CONTROLLERS) - set((group / "cgroup.controllers").read_text().split())
        if missing:
            names = ", ".join(sorted(missing))
            raise SandboxUnavailable([f"control group controllers are not delegated to this process: {names}"])
        _enable_for_children(group)
    except OSError as error:
        raise SandboxUnavailable([f"control groups are not writable: {error.filename}: {error.strerror}"]) from None
    return Trees(2, group, group, group, unified=group)


def _enable_for_children(group: Path) -> None:
    try:
        enable(group, CONTROLLERS)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        # A v2 group with limited children may hold no process itself: ours move one level down.
        move_processes(group, group / _OWN_LEAF)
        enable(group, CONTROLLERS)


def move_processes(group: Path, leaf: Path) -> None:
    """Moves every process of a v2 group into `leaf`, a child of it. Raises `OSError`."""
    leaf.mkdir(exist_ok=True)
    for _ in range(10):
        pids = (group / "cgroup.procs").read_text().split()
        if not pids:
            return
        for pid in pids:
            with suppress(ProcessLookupError):
                (leaf / "cgroup.procs").write_text(pid)


def _mounts(mountinfo: Path) -> list[_Mount]:
    found = []
    for line in mountinfo.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, _, *options) = left.split(" "), right.split(" ")
        if kind in ("cgroup", "cgroup2"):
            version = 2 if kind == "cgroup2" else 1
            found.append(_Mount(fields[3], Path(fields[4]), version, frozenset(",".join(options).split(","))))
    return found


def _own_groups(own: Path) -> dict[str, str]:
    """Controller -> path of this process's group; the v2 group under the empty name."""
    groups = {}
    for line in own.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path))
    return groups


def _v1_directory(controller: str, mounts: list[_Mount], groups: dict[str, str]) -> Path | None:
    for mount in mounts:
        if mount.version == 1 and controller in mount.options:
            return _inside(mount, groups.get(controller, "/"))
    return None


def _inside(mount: _Mount, group: str) -> Path:
    """The directory of `group` under a mount that may itself show only a part of the hierarchy."""
    if mount.root != "/" and (group == mount.root or group.startswith(mount.root + "/")):
        group = group[len(mount.root) :]
    directory = mount.point / group.strip("/")
    return directory if directory.is_dir() else mount.point
