"""Where control groups are made and what is written to them, on trees of ordinary files."""

from __future__ import annotations

from pathlib import Path

import pytest

from codeagent.sandboxes import cgroup_layout
from codeagent.sandboxes.cgroups import ControlGroups, Group, Trees
from codeagent.sandboxes.protocol import Limits, SandboxUnavailable

LIMITS = Limits(memory_bytes=64 << 20, processes=10, cpu_cores=0.5)


def kernel(tmp_path: Path, mounts: str, own: str) -> tuple[Path, Path]:
    """What /proc/self/mountinfo and /proc/self/cgroup say; ROOT stands for a temporary directory."""
    mountinfo, cgroup = tmp_path / "mountinfo", tmp_path / "cgroup"
    mountinfo.write_text(mounts.replace("ROOT", str(tmp_path / "fs")))
    cgroup.write_text(own)
    return mountinfo, cgroup


def v2_group(path: Path, controllers: str = "cpu io memory pids", enabled: str = "cpu memory pids") -> Path:
    path.mkdir(parents=True)
    (path / "cgroup.controllers").write_text(controllers + "\n")
    (path / "cgroup.subtree_control").write_text(enabled + "\n")
    (path / "cgroup.procs").write_text("")
    return path


V1 = """30 25 0:26 / ROOT/memory rw,relatime - cgroup cgroup rw,memory
31 25 0:27 / ROOT/pids rw,relatime - cgroup cgroup rw,pids
32 25 0:28 / ROOT/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
"""
UNIFIED = "33 25 0:29 / ROOT/unified rw,relatime - cgroup2 cgroup2 rw\n"
OTHER = "20 1 254:0 / / rw - ext4 /dev/vda rw\n21 1 0:5 / /tmp rw shared:3 - tmpfs tmpfs rw,size=1\n"
OWN_V1 = "9:memory:/given\n8:pids:/\n3:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n"


def v1_tree(tmp_path: Path) -> None:
    for name in ("memory/given", "pids", "cpu,cpuacct", "unified"):
        (tmp_path / "fs" / name).mkdir(parents=True)


def test_with_v1_groups_are_made_below_those_this_process_is_in(tmp_path: Path) -> None:
    v1_tree(tmp_path)
    trees = cgroup_layout.find_trees(*kernel(tmp_path, OTHER + V1, OWN_V1))
    root = tmp_path / "fs"
    assert (trees.version, trees.memory, trees.pids) == (1, root / "memory/given", root / "pids")
    assert trees.cpuacct == trees.cpu == root / "cpu,cpuacct"
    assert trees.unified is None
    assert len(trees.directories) == 3


def test_a_v2_tree_beside_v1_is_joined_first_because_it_kills(tmp_path: Path) -> None:
    v1_tree(tmp_path)
    trees = cgroup_layout.find_trees(*kernel(tmp_path, V1 + UNIFIED, OWN_V1))
    assert trees.version == 1
    assert trees.directories[0] == trees.unified == tmp_path / "fs" / "unified"


def test_with_v2_alone_one_directory_is_enough(tmp_path: Path) -> None:
    own = v2_group(tmp_path / "fs" / "unified" / "system.slice" / "codeagent.service")
    trees = cgroup_layout.find_trees(*kernel(tmp_path, UNIFIED, "0::/system.slice/codeagent.service\n"))
    assert (trees.version, trees.directories) == (2, (own,))


def test_a_worker_started_again_does_not_nest_ever_deeper(tmp_path: Path) -> None:
    own = v2_group(tmp_path / "fs" / "unified" / "service")
    v2_group(own / "codeagent-main")
    trees = cgroup_layout.find_trees(*kernel(tmp_path, UNIFIED, "0::/service/codeagent-main\n"))
    assert trees.directories == (own,)


def test_in_a_container_that_sees_only_its_part_the_mount_is_the_group(tmp_path: Path) -> None:
    v2_group(tmp_path / "fs" / "unified")
    mounts = UNIFIED.replace("0:29 /", "0:29 /docker/abc")
    trees = cgroup_layout.find_trees(*kernel(tmp_path, mounts, "0::/docker/abc\n"))
    assert trees.memory == tmp_path / "fs" / "unified"
    hidden = cgroup_layout.find_trees(*kernel(tmp_path, UNIFIED, "0::/somewhere/else\n"))
    assert hidden.memory == tmp_path / "fs" / "unified"


def test_what_is_not_delegated_is_named(tmp_path: Path) -> None:
    v2_group(tmp_path / "fs" / "unified", controllers="cpu pids")
    with pytest.raises(SandboxUnavailable, match="memory"):
        cgroup_layout.find_trees(*kernel(tmp_path, UNIFIED, "0::/\n"))
    with pytest.raises(SandboxUnavailable, match="mount cgroup2"):
        cgroup_layout.find_trees(*kernel(tmp_path, OTHER, "0::/\n"))


def test_a_delegated_group_is_taken_instead(tmp_path: Path) -> None:
    given = v2_group(tmp_path / "given", enabled="")
    trees = cgroup_layout.find_trees(parent=given)
    assert trees.memory == given
    assert (given / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    with pytest.raises(SandboxUnavailable, match="not writable"):
        cgroup_layout.find_trees(parent=tmp_path / "missing")


def written(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_v2_limits_allow_no_swap_and_end_all_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "g"
    path.mkdir()
    for name in ("memory.swap.max", "memory.oom.group"):
        (path / name).write_text("")
    monkeypatch.setattr(Path, "mkdir", lambda _path: None)  # the kernel would fill the directory when it is made
    Group(Trees(2, path, path, path, unified=path)).create(LIMITS)
    assert written(path) == {
        "memory.max": str(64 << 20), "memory.swap.max": "0", "memory.oom.group": "1",
        "pids.max": "13", "cpu.max": "50000 100000",
    }  # fmt: skip


def test_v1_limits_are_written_to_their_trees(tmp_path: Path) -> None:
    trees = Trees(1, tmp_path / "memory", tmp_path / "pids", tmp_path / "cpu")
    Group(trees).create(LIMITS)
    assert written(tmp_path / "memory") == {"memory.limit_in_bytes": str(64 << 20)}
    assert written(tmp_path / "pids") == {"pids.max": "13"}
    assert written(tmp_path / "cpu") == {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"}


def test_usage_is_read_in_either_layout_and_missing_figures_are_zero(tmp_path: Path) -> None:
    two = tmp_path / "two"
    two.mkdir()
    (two / "memory.peak").write_text("1000\n")
    (two / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    (two / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    (two / "pids.events").write_text("max 7\n")
    usage = Group(Trees(2, two, two, two, unified=two)).usage()
    assert (usage.cpu_seconds, usage.peak_memory_bytes, usage.oom_kills, usage.pids_refused) == (1.5, 1000, 1, 7)
    one = tmp_path / "one"
    one.mkdir()
    (one / "memory.max_usage_in_bytes").write_text("2000\n")
    (one / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    (one / "cpuacct.usage").write_text("2500000000\n")
    usage = Group(Trees(1, one, one, one, cpuacct=one)).usage()
    assert (usage.cpu_seconds, usage.peak_memory_bytes, usage.oom_kills, usage.pids_refused) == (2.5, 2000, 3, 0)


def test_groups_are_found_by_prefix_and_removed_when_empty(tmp_path: Path) -> None:
    trees = Trees(1, tmp_path / "memory", tmp_path / "pids", tmp_path / "cpu")
    groups = ControlGroups(trees, "codeagent-x")
    for directory in trees.directories:
        directory.mkdir()
    groups.prepare()
    for name in ("w1.1", "w1.2", "w2.1"):
        for directory in trees.directories:
            (directory / "codeagent-x" / name).mkdir()
    assert [group.name for group in groups.leftovers("w1.")] == ["w1.1", "w1.2"]
    assert all(group.remove() for group in groups.leftovers())
    groups.retire()
    assert [list(directory.iterdir()) for directory in trees.directories] == [[], [], []]
