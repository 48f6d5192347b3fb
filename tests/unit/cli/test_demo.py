"""What the demo says when the system does not come up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codeagent.cli import demo


def test_of_a_log_people_are_shown_its_plain_lines_and_each_error_once() -> None:
    error = json.dumps({"level": "error", "service": "edge", "event": "process.refused_to_start", "error": "no room"})
    crash = json.dumps({"level": "error", "service": "relay", "event": "sweep.failed"})
    quiet = json.dumps({"level": "info", "service": "edge", "event": "process.started"})
    log = "\n".join([quiet, error, crash, error, "codeagent: the system did not become ready"])
    assert demo._complaints(log) == [
        "edge: no room",
        "relay: sweep.failed",
        "codeagent: the system did not become ready",
    ]


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert demo.play(tmp_path, tmp_path / "file" / "data", 2) == 1
    shown = "".join(capsys.readouterr().out.split())  # however the path makes the lines wrap
    assert "demo.logcannotbewritten:Notadirectory" in shown
