"""The mechanics of a v2 tree, on a real one, with whatever controller it offers."""

from __future__ import annotations

import errno
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from codeagent.sandboxes import cgroup_layout
from codeagent.sandboxes.cgroups import Group, Trees, enable
from tests.conftest import unavailable
from tests.integration.sandboxes.support import require_root_and_bwrap


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A v2 group of our own, with every controller the tree offers."""
    require_root_and_bwrap()
    mount = next((m.point for m in cgroup_layout._mounts(Path("/proc/self/mountinfo")) if m.version == 2), None)
    if mount is None:
        unavailable("no v2 control groups are mounted")
    control = mount / "cgroup.subtree_control"
    lent = set((mount / "cgroup.controllers").read_text().split()) - set(control.read_text().split())
    control.write_text(" ".join(f"+{name}" for name in lent))
    group = mount / "codeagent-test-v2"
    group.mkdir()
    yield group
    for child in sorted(group.iterdir(), reverse=True):
        if child.is_dir():
            assert Group(Trees(2, child, child, child, unified=child)).remove(within_seconds=5)
    assert Group(Trees(2, group, group, group, unified=group)).remove(within_seconds=5)
    control.write_text(" ".join(f"-{name}" for name in lent))


@pytest.fixture
def process(delegated: Path) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(["sleep", "60"])
    (delegated / "cgroup.procs").write_text(str(started.pid))
    yield started
    started.kill()
    started.wait()


def test_processes_make_room_for_limited_children(delegated: Path, process: subprocess.Popen[bytes]) -> None:
    offered = (delegated / "cgroup.controllers").read_text().split()
    if not offered:
        unavailable("the v2 tree has no controller to try with")
    controllers = (offered[0],)
    with pytest.raises(OSError, match="busy") as caught:
        enable(delegated, controllers)
    assert caught.value.errno == errno.EBUSY
    cgroup_layout.move_processes(delegated, delegated / "leaf")
    enable(delegated, controllers)
    enable(delegated, controllers)
    assert (delegated / "leaf" / "cgroup.procs").read_text().split() == [str(process.pid)]


def test_a_whole_group_is_killed_at_once_and_removed(delegated: Path) -> None:
    group = Group(Trees(2, delegated / "op", delegated / "op", delegated / "op", unified=delegated / "op"))
    (delegated / "op").mkdir()
    assert group.procs_files == (delegated / "op" / "cgroup.procs",)
    children = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
    for child in children:
        (delegated / "op" / "cgroup.procs").write_text(str(child.pid))
    assert not group.empty
    assert not group.remove()
    assert [child.wait(timeout=5) for child in children] == [-9, -9, -9]
    assert group.remove(within_seconds=5)
    assert group.usage().cpu_seconds == 0
    assert group.remove()


def test_cpu_time_is_counted(delegated: Path) -> None:
    group = Group(Trees(2, delegated, delegated, delegated, unified=delegated))
    child = subprocess.Popen(["sh", "-c", f"echo $$ > {delegated}/cgroup.procs; while :; do :; done"])
    time.sleep(0.5)
    child.kill()
    child.wait()
    assert 0.05 < group.usage().cpu_seconds < 2
