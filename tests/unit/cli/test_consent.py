"""What people are told about weaker sandboxes: why, what to do, and what they give up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from codeagent.cli.consent import notice, require_level
from codeagent.errors import Unavailable
from codeagent.sandboxes import machine
from codeagent.sandboxes.bwrap import Bubblewrap
from codeagent.sandboxes.protocol import IsolationLevel

NO_ROOT = "level 2 needs root, for control groups and slot users: start it as root"
NO_NAMESPACES = "user namespaces are turned off: sysctl user.max_user_namespaces=10000"
GIVEN_UP = [
    "memory is limited for each process, not for a command as a whole;",
    "a command may use every processor;",
    "the size of each file is limited, not that of a workspace;",
    "commands run under your own user id: what breaks out of a sandbox may do what you may do.",
]


@pytest.fixture
def ordinary_user(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(Bubblewrap, "_program_reasons", lambda _: [])
    monkeypatch.setattr(machine, "setting", lambda _: "")
    return monkeypatch


def refusal(level: int) -> list[str]:
    with pytest.raises(Unavailable) as caught:
        require_level(level, Path("/nowhere"))
    assert caught.value.code == "sandbox_unavailable"
    return [line.strip().removeprefix("- ") for line in caught.value.detail.splitlines()]


@pytest.mark.usefixtures("ordinary_user")
def test_without_root_the_choice_is_root_or_a_weaker_level_that_is_explained() -> None:
    said = refusal(2)
    assert said[:2] == ["sandboxes of level 2 cannot be made here:", NO_ROOT]
    assert "`--allow-level 1` (`make demo LEVEL=1`)" in said[2]
    assert said[3:] == GIVEN_UP
    require_level(1, Path("/nowhere"))


def test_where_no_level_works_none_is_offered(ordinary_user: pytest.MonkeyPatch) -> None:
    ordinary_user.setattr(machine, "setting", lambda _: "0")
    for level, reasons in ((2, [NO_ROOT, NO_NAMESPACES]), (1, [NO_NAMESPACES])):
        said = refusal(level)
        assert said[0] == f"sandboxes of level {level} cannot be made here:"
        assert said[1 : 1 + len(reasons)] == reasons
        assert not any("allow-level" in line for line in said)


def test_a_level_takes_what_its_own_driver_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert refusal(IsolationLevel.OWN_KERNEL)[1].startswith("runsc is missing: ")


@pytest.mark.usefixtures("ordinary_user")
def test_the_notice_names_what_is_missing_and_nothing_at_full_strength() -> None:
    said = notice(1)
    assert said.startswith("Sandboxes run at level 1, as you allowed.")
    assert all(line in said for line in GIVEN_UP)
    assert notice(2) == ""


def test_root_keeps_its_own_users_and_bounded_workspaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    said = notice(1)
    assert GIVEN_UP[0] in said
    assert "user id" not in said
