"""One command on a copy of a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.exec_once import exec_once
from codeagent.sandboxes.protocol import Reason, SandboxFailure
from tests.integration.sandboxes.support import LIMITS, Collected


async def test_a_directory_is_copied_in_and_never_changed(
    driver: BubblewrapDriver, tmp_path: Path, state_dir: Path
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_text("original")
    (tmp_path / "run").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "run").chmod(0o755)
    sink = Collected()
    command = ("sh", "-c", "./run; cat sub/file; echo $WORD; echo changed > sub/file; rm run")
    record = await exec_once(driver, tmp_path, command, 10.0, LIMITS, {"WORD": "here"}, sink)
    assert (record.reason, record.stdout) == (Reason.OK, b"ran\noriginalhere\n")
    assert sink.pieces["stdout"] == record.stdout
    assert (tmp_path / "sub" / "file").read_text() == "original"
    assert (tmp_path / "run").exists()
    assert list((state_dir / "workspaces").iterdir()) == []


async def test_without_a_directory_the_workspace_is_empty(driver: BubblewrapDriver, state_dir: Path) -> None:
    record = await exec_once(driver, None, ("sh", "-c", "ls -A; pwd"), 10.0, LIMITS, {})
    assert record.stdout == b"/workspace\n"


async def test_its_time_is_limited(driver: BubblewrapDriver, state_dir: Path) -> None:
    record = await exec_once(driver, None, ("sleep", "30"), 0.3, LIMITS, {})
    assert record.reason is Reason.TIMEOUT
    assert list((state_dir / "workspaces").iterdir()) == []


async def test_a_directory_that_is_not_there_is_told(driver: BubblewrapDriver, tmp_path: Path) -> None:
    with pytest.raises(SandboxFailure) as caught:
        await exec_once(driver, tmp_path / "missing", ("true",), 10.0, LIMITS, {})
    assert (caught.value.reason, caught.value.retryable) == ("bad_path", False)
