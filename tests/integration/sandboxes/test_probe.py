"""A driver proves itself before it is used, and says what is missing when it cannot."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest

from codeagent.sandboxes import machine, probe
from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.protocol import IsolationLevel, SandboxUnavailable
from codeagent.sandboxes.select import choose_driver
from tests.integration.sandboxes.support import require_root_and_bwrap


async def test_the_probe_proves_isolation_and_three_limits(driver: BubblewrapDriver) -> None:
    report = await driver.probe()
    assert report.level is IsolationLevel.KERNEL
    assert all(report.facts.values())
    assert {"memory_limited", "wall_time_limited", "processes_limited", "no_host_accounts"} <= report.facts.keys()
    began = time.perf_counter()
    assert await driver.probe() is report
    assert time.perf_counter() - began < 0.01


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
    driver = await choose_driver(IsolationLevel.KERNEL, IsolationLevel.RLIMIT, state_dir)
    assert driver.level is IsolationLevel.KERNEL
    await driver.shutdown()
    with pytest.raises(SandboxUnavailable, match="OWN_KERNEL"):
        await choose_driver(IsolationLevel.OWN_KERNEL, None, state_dir)
    with pytest.raises(SandboxUnavailable, match="without isolation"):
        await choose_driver(IsolationLevel.NONE, None, state_dir)


async def test_without_bubblewrap_everything_missing_is_named_at_once(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_setting", lambda path: "0")
    with pytest.raises(SandboxUnavailable) as caught:
        await choose_driver(IsolationLevel.KERNEL, None, state_dir, bwrap_path="/nowhere/bwrap")
    assert "KERNEL: bubblewrap is missing: apt-get install bubblewrap" in caught.value.reasons
    assert any("max_user_namespaces" in reason for reason in caught.value.reasons)


async def test_without_groups_a_weaker_level_is_taken_only_if_allowed(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(parent: Path | None = None) -> None:
        raise SandboxUnavailable(["no control groups are mounted"])

    monkeypatch.setattr("codeagent.sandboxes.cgroup_layout.find_trees", none)
    with pytest.raises(SandboxUnavailable, match="KERNEL: no control groups"):
        await choose_driver(IsolationLevel.KERNEL, None, state_dir)
    driver = await choose_driver(IsolationLevel.KERNEL, IsolationLevel.RLIMIT, state_dir)
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
