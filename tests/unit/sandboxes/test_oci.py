"""The bundle a kernel of its own is started with: what it always says, and what it can never say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from codeagent.sandboxes.box import Bind, Box, Link, Surroundings
from codeagent.sandboxes.oci import write_bundle
from codeagent.sandboxes.protocol import Limits

AROUND = Surroundings(
    top_level=(Bind(Path("/usr"), "/usr"), Link("usr/bin", "/bin")),
    etc=Path("/etc"),
    masks=(),
    tools=(Bind(Path("/usr"), "/opt/python"),),
    environment={"PATH": "/usr/bin"},
)


def written(bundle: Path, **changed: Any) -> dict[str, Any]:
    bundle.mkdir(exist_ok=True)
    box = Box(**{"command": ("echo", "two words"), "workspace": Path("/tmp"), **changed})
    write_bundle(bundle, box, AROUND, Limits(processes=7, cpu_seconds=9))
    config: dict[str, Any] = json.loads((bundle / "config.json").read_text())
    return config


def mounts(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {mount["destination"]: mount for mount in config["mounts"]}


def test_commands_have_no_privilege_and_cannot_get_any(tmp_path: Path) -> None:
    process = written(tmp_path)["process"]
    assert process["user"]["uid"] == 1000
    assert process["capabilities"] == {}
    assert process["noNewPrivileges"] is True
    assert process["args"][-2:] == ["echo", "two words"]


def test_nothing_but_workspace_and_memory_can_be_written(tmp_path: Path) -> None:
    config = written(tmp_path, binds=(Bind(Path("/etc"), "/fetch", writable=True),))
    assert config["root"]["readonly"] is True
    writable = {
        target for target, mount in mounts(config).items() if mount["type"] == "bind" and "rw" in mount["options"]
    }
    assert writable == {"/workspace", "/fetch"}
    assert "ro" in mounts(written(tmp_path / "other", writable=False))["/workspace"]["options"]


def test_memory_file_systems_are_bounded(tmp_path: Path) -> None:
    config = written(tmp_path, tmp_bytes=12345)
    assert "size=12345" in mounts(config)["/tmp"]["options"]
    assert all("size=" in " ".join(mount["options"]) for mount in config["mounts"] if mount["type"] == "tmpfs")


def test_limits_of_the_command_are_those_of_the_kernel_inside(tmp_path: Path) -> None:
    limits = {limit["type"]: (limit["soft"], limit["hard"]) for limit in written(tmp_path)["process"]["rlimits"]}
    assert limits["RLIMIT_NPROC"] == (7, 7)
    assert limits["RLIMIT_CPU"] == (9, 11)
    assert limits["RLIMIT_CORE"] == (0, 0)


def test_the_root_has_a_place_for_every_mount_and_nothing_else(tmp_path: Path) -> None:
    config = written(tmp_path, binds=(Bind(Path("/etc/passwd"), "/run/file"),))
    root = Path(config["root"]["path"])
    assert (root / "bin").readlink() == Path("usr/bin")
    for target, mount in mounts(config).items():
        if target != "/dev/shm":  # below a file system that the kernel inside makes
            assert (root / target.lstrip("/")).exists(), mount
    assert [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()] == [root / "run" / "file"]


@pytest.mark.parametrize("target", ["/workspace/x", "/tmp/x", "relative", "/home/agent", "/a/../b", "/"])
def test_nothing_is_mounted_where_somebody_inside_could_have_replaced_it(tmp_path: Path, target: str) -> None:
    with pytest.raises(ValueError, match="nothing may be mounted"):
        written(tmp_path, binds=(Bind(Path("/etc"), target),))
