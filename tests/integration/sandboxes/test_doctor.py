"""`codeagent doctor` on this machine: what proves itself, what does not and why, and whether a worker would start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codeagent.cli.main import app
from tests.integration.sandboxes.support import require_root_and_bwrap


def doctor(state_dir: Path, *options: str) -> tuple[int, str]:
    answer = CliRunner().invoke(app, ["doctor", "--state-dir", str(state_dir), *options])
    return answer.exit_code, answer.stdout


def test_drivers_are_tried_and_the_one_a_worker_would_take_is_named(state_dir: Path) -> None:
    require_root_and_bwrap()
    status, said = doctor(state_dir, "--json", "--minimum-level", "2")
    found = json.loads(said)
    assert (status, found["minimum_level"], found["chosen"]) == (0, 2, {"driver": "bwrap", "level": 2})
    by_name = {(driver["driver"], driver["level"]): driver for driver in found["drivers"]}
    assert by_name["bwrap", 2]["proven"] is True
    assert all(driver["proven"] or driver["reasons"] for driver in found["drivers"])
    assert all(driver["guarantee"] for driver in found["drivers"])


def test_what_is_missing_is_named_with_its_remedy_and_the_status_tells(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_root_and_bwrap()
    monkeypatch.setenv("PATH", "/nowhere")
    status, said = doctor(state_dir, "--minimum-level", "3")
    assert status == 1
    assert "level 3  runsc: cannot be used here" in said
    assert "  - runsc is missing: " in said
    assert "  - bubblewrap is missing: apt-get install bubblewrap" in said
    assert (
        said.splitlines()[-1] == "Level 3 with any driver, as configured, cannot be had here: a worker would not start."
    )
