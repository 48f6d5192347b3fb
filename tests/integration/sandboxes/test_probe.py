"""A driver proves itself before it is used, and says what is missing when it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
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


ORDINARY_USER = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = [path for path in sys.argv[2].split(":") if path]
from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.protocol import ExecSpec, IsolationLevel, Limits, SandboxUnavailable
from codeagent.sandboxes import archives
from dataclasses import replace

async def ignore(stream, piece): pass

async def main():
    root = Path(sys.argv[1])
    try:
        await BubblewrapDriver(root / "kernel").probe()
        print("level KERNEL without root")
    except SandboxUnavailable as unavailable:
        print(unavailable.reasons[0].split(":")[0])
    driver = BubblewrapDriver(root / "state", IsolationLevel.RLIMIT)
    report = await driver.probe()
    print(report.level.name, all(report.facts.values()))
    archives.pack_files({"README": b"x\\n"}, root / "a.tar.gz", Limits())
    limits = replace(Limits(), processes=10, memory_bytes=200 << 20, wall_seconds=10)
    w = await driver.open("w", root / "a.tar.gz", b"", limits)
    r = await driver.run(w, ExecSpec(("sh", "-c", "echo y > README; mkdir -p a/b; touch a/b/c; id -u"), limits=limits), ignore)
    print(r.reason, r.stdout, r.level.name, r.peak_memory_bytes > 0)
    print((await driver.diff(w, limits)).files)
    fork = "import os,time\\nn=0\\nfor i in range(40):\\n try:\\n  if os.fork()==0: time.sleep(5); os._exit(0)\\n  n+=1\\n except OSError: break\\nprint(n)"
    r = await driver.run(w, ExecSpec(("python3", "-c", fork), limits=limits), ignore)
    print("forks held", int(r.stdout) < 12)
    r = await driver.run(w, ExecSpec(("python3", "-c", "x = bytearray(400 << 20)"), limits=limits), ignore)
    print(r.reason, b"MemoryError" in r.stderr)
    r = await driver.run(w, ExecSpec(("sh", "-c", "setsid sleep 61 & mkdir -p x/y; chmod 0 x; sleep 62"), limits=replace(limits, wall_seconds=0.5)), ignore)
    print(r.reason)
    await driver.shutdown()
    print([p.name for p in (root / "state" / "workspaces").iterdir()])

asyncio.run(main())
"""


def test_an_ordinary_user_gets_the_weaker_level_by_asking_for_it(state_dir: Path) -> None:
    """Run as another user, from a copy of this interpreter that user may read."""
    site = [path for path in sys.path if path.endswith("site-packages")]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o777)
        for path in (
            Path("codeagent"),
            *(
                Path(site[0], name)
                for name in ("pyseccomp.py", "pytest", "pluggy", "iniconfig", "packaging", "pygments")
            ),
        ):
            subprocess.run(["cp", "-r", str(path), f"{folder}/"], check=True)
        for pattern in (
            "pytest-*.dist-info",
            "pluggy-*.dist-info",
            "iniconfig-*.dist-info",
            "packaging-*.dist-info",
            "pygments-*.dist-info",
        ):
            for path in Path(site[0]).glob(pattern):
                subprocess.run(["cp", "-r", str(path), f"{folder}/"], check=True)
        subprocess.run(["cp", "-rL", str(Path(site[0], "_pytest")), f"{folder}/"], check=True)
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        interpreter = Path("/usr/bin/python3.11") if Path("/usr/bin/python3.11").exists() else Path("/usr/bin/python3")
        answer = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", str(interpreter), "-I", "-c", ORDINARY_USER,
             folder, folder],
            capture_output=True, text=True, timeout=60, cwd="/", check=False,
        )  # fmt: skip
        assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == [
        "level KERNEL needs root, for control groups and slot users",
        "RLIMIT True",
        "ok b'1000\\n' RLIMIT True",
        "('README', 'a/b/c')",
        "forks held True",
        "exit True",
        "timeout",
        "[]",
    ]
