"""A driver proves itself before it is used, and says what is missing when it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from codeagent.sandboxes import machine, probe
from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.offers import Host
from codeagent.sandboxes.protocol import IsolationLevel, SandboxUnavailable
from codeagent.sandboxes.select import choose_driver
from tests.integration.sandboxes.support import archive, require_root_and_bwrap

ROOT = Path(__file__).resolve().parents[3]
SYSTEM_PYTHON = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def place() -> Iterator[Path]:
    """A state directory that no other test has used."""
    require_root_and_bwrap()
    directory = Path(tempfile.mkdtemp(prefix="codeagent-sandbox-"))
    yield directory
    shutil.rmtree(directory)


async def test_the_probe_proves_isolation_and_three_limits(driver: BubblewrapDriver) -> None:
    report = await driver.probe()
    assert report.level is IsolationLevel.KERNEL
    assert all(report.facts.values())
    assert {"memory_limited", "wall_time_limited", "processes_limited", "no_host_accounts"} <= report.facts.keys()
    began = time.perf_counter()
    assert await driver.probe() is report
    assert time.perf_counter() - began < 0.1  # nothing is started


PROBE = """
import asyncio, sys
from pathlib import Path
from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.offers import Host
from codeagent.sandboxes.protocol import ExecSpec
from codeagent.sandboxes.streams import discard

async def main():
    driver = BubblewrapDriver(Path(sys.argv[1]))
    print(all((await driver.probe()).facts.values()))
    workspace = await driver.open("w", Path(sys.argv[2]), b"", ExecSpec(()).limits)
    for argv in (["python", "-I", "-m", "pytest", "--version"], ["pytest", "--version"]):
        print((await driver.run(workspace, ExecSpec(tuple(argv)), discard)).stdout)
    await driver.shutdown()

asyncio.run(main())
"""


@pytest.mark.skipif(not Path(SYSTEM_PYTHON).exists(), reason=f"the machine has no {SYSTEM_PYTHON}")
def test_the_distributions_own_python_does_as_well(place: Path) -> None:
    """It is seen inside where it is, below /usr, and not copied."""
    packages = Path(pytest.__file__).parents[1]
    command = [SYSTEM_PYTHON, "-B", "-c", PROBE, str(place), str(archive(place))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(packages)])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True"] + [str(f"pytest {pytest.__version__}\n".encode())] * 2


async def test_a_limit_that_does_not_bite_makes_the_driver_unavailable(
    driver: BubblewrapDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_MEMORY_PROGRAM", "pass")
    with pytest.raises(SandboxUnavailable) as caught:
        await driver.probe()
    assert caught.value.reasons == ("not proven: memory limited",)


async def test_a_sandbox_without_its_filters_is_noticed(
    driver: BubblewrapDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codeagent.sandboxes.seccomp.write_programs", lambda _directory: ())
    with pytest.raises(SandboxUnavailable) as caught:
        await driver.probe()
    assert {"not proven: system calls filtered", "not proven: no vsock"} <= set(caught.value.reasons)


async def test_the_strongest_driver_is_chosen_and_never_a_weaker_one(state_dir: Path) -> None:
    driver = await choose_driver(IsolationLevel.KERNEL, IsolationLevel.RLIMIT, Host(state_dir))
    assert driver.level is IsolationLevel.KERNEL
    await driver.shutdown()
    with pytest.raises(SandboxUnavailable, match="bwrap does not isolate at level 3"):
        await choose_driver(IsolationLevel.OWN_KERNEL, None, Host(state_dir), "bwrap")
    with pytest.raises(SandboxUnavailable, match=r"no driver chroot: there are bwrap, runsc"):
        await choose_driver(IsolationLevel.KERNEL, None, Host(state_dir), "chroot")
    with pytest.raises(SandboxUnavailable, match="without isolation"):
        await choose_driver(IsolationLevel.NONE, None, Host(state_dir))


async def test_without_bubblewrap_everything_missing_is_named_at_once(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "setting", lambda path: "0")
    with pytest.raises(SandboxUnavailable) as caught:
        await choose_driver(IsolationLevel.KERNEL, None, Host(state_dir, programs={"bwrap": "/nowhere/bwrap"}), "bwrap")
    assert "bwrap at level 2: bubblewrap is missing: apt-get install bubblewrap" in caught.value.reasons
    assert any("max_user_namespaces" in reason for reason in caught.value.reasons)


async def test_without_groups_a_weaker_level_is_taken_only_if_allowed(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(parent: Path | None = None) -> None:
        raise SandboxUnavailable(["no control groups are mounted"])

    monkeypatch.setattr("codeagent.sandboxes.cgroup_layout.find_trees", none)
    with pytest.raises(SandboxUnavailable, match="bwrap at level 2: no control groups"):
        await choose_driver(IsolationLevel.KERNEL, None, Host(state_dir))
    driver = await choose_driver(IsolationLevel.KERNEL, IsolationLevel.RLIMIT, Host(state_dir))
    try:
        assert driver.level is IsolationLevel.RLIMIT
        assert (await driver.probe()).level is IsolationLevel.RLIMIT
    finally:
        await driver.shutdown()


async def test_a_state_directory_slots_cannot_reach_is_refused() -> None:
    require_root_and_bwrap()
    with tempfile.TemporaryDirectory() as closed:  # mode 0700
        driver = BubblewrapDriver(Path(closed) / "state")
        with pytest.raises(SandboxUnavailable, match=r"chmod o\+x"):
            await driver.probe()
        await driver.shutdown()
