"""`codeagent doctor` on this machine: what proves itself, what does not and why, and whether a worker would start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codeagent.cli import examination
from codeagent.cli.main import app
from codeagent.sandboxes.offers import OFFERS
from tests.integration.sandboxes.support import require_root_and_bwrap
from tests.services.root_image import laid_out


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


def test_images_are_tried_in_the_driver_that_a_worker_would_take(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_root_and_bwrap()
    monkeypatch.setattr(examination, "OFFERS", [offer for offer in OFFERS if (offer.name, offer.level) == ("bwrap", 2)])
    with laid_out() as root:
        monkeypatch.setenv("CODEAGENT_SANDBOX_IMAGES", json.dumps({"own": str(root)}))
        status, said = doctor(state_dir)
        assert (status, said.splitlines()[-2]) == (0, "image own: serves")
        monkeypatch.setenv("CODEAGENT_SANDBOX_IMAGES", json.dumps({"own": str(root), "gone": "/nowhere/at/all"}))
        status, said = doctor(state_dir, "--json")
        assert status == 1
        assert json.loads(said)["images"] == [
            {"image": "own", "serves": True, "reason": ""},
            {"image": "gone", "serves": False, "reason": "there is no directory /nowhere/at/all"},
        ]
        command = ["sandbox", "exec", "--state-dir", str(state_dir), "--json", "--image"]
        answer = CliRunner().invoke(app, [*command, "own", "--", "toolchain"])
        record = json.loads(answer.stdout.splitlines()[-1])
        assert (answer.exit_code, record["stdout"]) == (0, "of the image\n")
        answer = CliRunner().invoke(app, [*command, "other", "--", "true"])
        assert answer.exit_code == 2
        assert "there is none, but default, own, gone" in answer.output
