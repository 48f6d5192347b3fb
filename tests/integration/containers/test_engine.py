"""The container driver and an engine: what it asks for, how it tells endings apart, and when it refuses to start."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from codeagent.sandboxes.containers import ContainerDriver
from codeagent.sandboxes.engine import EngineOptions
from codeagent.sandboxes.protocol import ExecSpec, Reason, SandboxFailure, SandboxUnavailable, Workspace
from codeagent.sandboxes.volumes import remove_tree
from tests.conftest import unavailable
from tests.integration.sandboxes.support import LIMITS, archive, ignore
from tests.servers import container_engine

PROGRAM = Path(container_engine.__file__)
LOGIN, NOBODY = Path("/proc/self/loginuid"), str((1 << 32) - 1)


@pytest.fixture
def engine() -> Iterator[Path]:
    """The stub engine's state."""
    directory = Path(tempfile.mkdtemp(prefix="codeagent-engine-"))
    directory.chmod(0o711)
    yield directory
    remove_tree(directory)


@pytest.fixture
async def driver(engine: Path) -> AsyncIterator[ContainerDriver]:
    if os.geteuid() != 0:
        unavailable("slot users and control groups need root")
    options = EngineOptions("docker", container_engine.IMAGE, (str(PROGRAM), str(engine)), program=sys.executable)
    driver = ContainerDriver(engine / "sandboxes", options)
    yield driver
    (engine / "gone").unlink(missing_ok=True)
    await driver.shutdown()


@pytest.fixture
async def workspace(driver: ContainerDriver, tmp_path: Path) -> Workspace:
    return await driver.open("w", archive(tmp_path, {"README": b"hello\n"}), b"", LIMITS)


async def refusal(driver: ContainerDriver, workspace: Workspace) -> tuple[str, bool]:
    with pytest.raises(SandboxFailure) as caught:
        await driver.run(workspace, ExecSpec(("true",), limits=LIMITS), ignore)
    return caught.value.reason, caught.value.retryable


def left(engine: Path) -> list[Path]:
    return list(engine.glob("codeagent-*"))


async def test_commands_run_and_their_containers_are_removed(
    driver: ContainerDriver, workspace: Workspace, engine: Path
) -> None:
    record = await driver.run(workspace, ExecSpec(("cat", "README"), limits=LIMITS), ignore)
    assert (record.reason, record.exit_code, record.stdout) == (Reason.OK, 0, b"hello\n")
    missing = await driver.run(workspace, ExecSpec(("no-such-program",), limits=LIMITS), ignore)
    assert (missing.reason, missing.exit_code) == (Reason.EXIT, 127)
    await driver.write_file(workspace, "new", b"x\n")
    assert (await driver.diff(workspace, LIMITS)).files == ("new",)
    assert left(engine) == []


async def test_what_takes_too_long_is_killed_by_the_drivers_clock(
    driver: ContainerDriver, workspace: Workspace, engine: Path
) -> None:
    limits = replace(LIMITS, wall_seconds=0.5)
    record = await driver.run(workspace, ExecSpec(("sleep", "60"), limits=limits), ignore)
    assert (record.reason, record.exit_code) == (Reason.TIMEOUT, None)
    assert record.wall_seconds < 20
    assert left(engine) == []


async def test_the_engine_tells_what_was_out_of_memory(
    driver: ContainerDriver, workspace: Workspace, engine: Path
) -> None:
    (engine / "oom").touch()
    record = await driver.run(workspace, ExecSpec(("sh", "-c", "exit 137"), limits=LIMITS), ignore)
    assert (record.reason, record.limits_hit) == (Reason.OOM, ("memory",))


async def test_a_container_that_never_started_is_no_exit_of_the_command(
    driver: ContainerDriver, workspace: Workspace, engine: Path
) -> None:
    (engine / "refuse").touch()
    record = await driver.run(workspace, ExecSpec(("true",), limits=LIMITS), ignore)
    assert (record.reason, record.exit_code) == (Reason.SANDBOX_ERROR, None)
    assert "permission denied" in record.detail
    assert left(engine) == []


async def test_a_missing_image_is_final_and_a_missing_engine_is_not(
    driver: ContainerDriver, workspace: Workspace, engine: Path
) -> None:
    (engine / "no-image").touch()
    assert await refusal(driver, workspace) == ("image_missing", False)
    (engine / "gone").touch()
    assert await refusal(driver, workspace) == ("engine_unavailable", True)


@pytest.mark.parametrize(
    ("fault", "words"), [("gone", "does not answer"), ("no-image", "is missing"), ("systemd", "cgroupfs")]
)
async def test_an_engine_that_cannot_do_it_is_named(
    driver: ContainerDriver, engine: Path, fault: str, words: str
) -> None:
    (engine / fault).touch()
    with pytest.raises(SandboxUnavailable, match=words):
        await driver.probe()


async def test_containers_of_a_worker_that_died_go_first(driver: ContainerDriver, engine: Path) -> None:
    (engine / "codeagent-left-over").write_text("{}")
    await driver.reap(frozenset())
    assert left(engine) == []


async def test_every_container_is_hardened(driver: ContainerDriver, workspace: Workspace, engine: Path) -> None:
    await driver.run(workspace, ExecSpec(("true",), limits=LIMITS), ignore)
    for line in (engine / "runs.jsonl").read_text().splitlines():
        options, _ = container_engine.parse(json.loads(line))
        assert {"--read-only", "--init"} <= options.keys()
        assert [options[name] for name in ("--network", "--cap-drop", "--pull", "--ipc", "--cgroupns")] == [
            *(["none"], ["ALL"], ["never"], ["private"], ["private"])
        ]
        assert options["--stop-timeout"] == ["0"], "what is deaf to signals holds nobody up"
        assert options["--memory"] == options["--memory-swap"] == [f"{LIMITS.memory_bytes}b"]
        assert options["--user"] == [f"{workspace.slot_uid}:{workspace.slot_uid}"]  # type: ignore[attr-defined]
        assert "no-new-privileges" in options["--security-opt"]
        profile = next(word for word in options["--security-opt"] if word.startswith("seccomp="))
        assert json.loads(Path(profile.removeprefix("seccomp=")).read_text())["defaultAction"] == "SCMP_ACT_ERRNO"
        targets = [mount.split("target=")[1].split(",")[0] for mount in options["--mount"]]
        assert set(targets) <= {"/workspace", "/base.git"}
        assert [word.split(",")[0] for word in options["--tmpfs"][:2]] == ["/sys:ro", "/sys/fs/cgroup:ro"]


async def test_a_command_is_its_users_in_the_audit_trail(driver: ContainerDriver, workspace: Workspace) -> None:
    if not LOGIN.exists():
        pytest.skip("this kernel keeps no audit trail")
    record = await driver.run(workspace, ExecSpec(("cat", str(LOGIN)), limits=LIMITS), ignore)
    login = LOGIN.read_text()
    assert record.stdout.decode() == (login if login != NOBODY else str(workspace.slot_uid))  # type: ignore[attr-defined]


def test_images_are_pinned() -> None:
    for image in ("python:3.12", "python@sha256:12", "sha256:" + "0" * 63, "a b@sha256:" + "0" * 64):
        with pytest.raises(ValueError, match="pinned"):
            EngineOptions("docker", image)
    EngineOptions("podman", "registry.example/sandbox@sha256:" + "a" * 64)
