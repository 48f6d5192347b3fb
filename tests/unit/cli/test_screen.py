"""What a run looks like on a terminal, and what it cannot do to it."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from codeagent.cli.client import ServerEvent
from codeagent.cli.screen import Screen

HOSTILE = "be\x1b]0;title\x07fore\x1b[2J \x9b31m[red]after\r\n"
ENDED = {"tool_call_id": "c", "name": "shell", "reason": "ok", "exit_code": 0, "duration_seconds": 0.1}
ASKED = {"tool": "shell", "arguments_ref": None}
MESSAGE = {"effect_id": "e", "tool_calls": [], "usage": {"input_tokens": 1, "output_tokens": 1}, "cost_usd": None}


def shown(*events: tuple[str, dict[str, object]], patch: str = "") -> str:
    page = io.StringIO()
    screen = Screen(Console(file=page, width=200, force_terminal=False))
    for name, data in events:
        screen.show(ServerEvent(name, {"data": data}, 1))
    screen.patch(patch)
    return page.getvalue()


@pytest.mark.parametrize(
    "event",
    [
        ("message.delta", {"effect_id": "e", "text": HOSTILE}),
        ("tool.output.delta", {"effect_id": "e", "text": HOSTILE}),
        ("message.completed", {**MESSAGE, "text": HOSTILE}),
        ("tool.call.completed", {**ENDED, "effect_id": "e", "output": HOSTILE}),
        ("tool.call.failed", {"error": HOSTILE}),
        ("run.input_required", {"request": {**ASKED, "arguments": json.dumps({"command": HOSTILE})}}),
        ("run.input_received", {"decision": "reject", "principal": "usr_a", "comment": HOSTILE}),
        ("run.nudged", {"message": HOSTILE}),
        ("subagent.started", {"agent": HOSTILE, "child_run_id": HOSTILE}),
        ("run.guidance_found", {"guidance": {"files": [{"path": HOSTILE}], "skills": []}}),
        ("run.completed", {"message": HOSTILE}),
        ("run.failed", {"message": HOSTILE, "status_reason": "sandbox_error"}),
    ],
    ids=lambda event: event[0],
)
def test_nothing_that_is_said_steers_the_terminal(event: tuple[str, dict[str, object]]) -> None:
    page = shown(event)
    assert "[red]after" in page
    assert not any((character < " " and character != "\n") or "\x7f" <= character <= "\x9f" for character in page)


def test_a_patch_does_not_steer_it_either() -> None:
    page = shown(patch="+++ b/x\n+\x1b[31mred\x1b[0m\n")
    assert page == "+++ b/x\n+[31mred[0m\n"


def test_text_that_was_streamed_is_not_printed_again() -> None:
    page = shown(
        ("message.delta", {"effect_id": "e", "text": "Once."}),
        ("message.completed", {**MESSAGE, "text": "Once."}),
    )
    assert page.count("Once.") == 1
    assert "2 tokens" in page


def test_what_is_asked_is_shown_whole_and_what_would_not_show_is_spelt_out() -> None:
    command = "make \\\n  test\u202e; rm -rf /\u200b\t#\r" + "x" * 500
    page = shown(("run.input_required", {"request": {**ASKED, "arguments": json.dumps({"command": command})}}))
    assert "command: make \\\n" in page
    assert "    test\\u202e; rm -rf /\\u200b\\u0009#\\u000d" in page
    assert page.count("x") == 500


def test_arguments_that_are_an_artifact_are_named() -> None:
    page = shown(("run.input_required", {"request": {**ASKED, "arguments": "", "arguments_ref": "sha256:abc"}}))
    assert "shell with the arguments of artifact sha256:abc" in page


SUBMITTED = {"run_id": "run_1", "agent": "coder", "agent_version": 1, "model": "builtin/repair"}


def test_a_run_of_its_own_is_shown_on_one_line() -> None:
    assert shown(("run.submitted", SUBMITTED)) == "run run_1  agent coder@1  model builtin/repair\n"


@pytest.mark.parametrize(
    ("tools", "words"), [(["shell", "edit_file"], "shell, edit_file"), ("all_changing", "all that may change files")]
)
def test_what_a_run_belongs_to_and_asks_about_is_shown_when_it_begins(tools: object, words: str) -> None:
    belongs = {"project_id": "prj_1", "session_id": "ses_1"}
    page = shown(("run.submitted", {**SUBMITTED, **belongs, "approvals": {"tools": tools}}))
    assert page.splitlines()[1:] == ["project prj_1  session ses_1", f"asks before {words}"]


def test_of_calls_that_run_side_by_side_each_end_says_which_it_is() -> None:
    calls = [{"id": name, "name": "read_file", "arguments": json.dumps({"path": name})} for name in ("a", "b")]
    page = shown(
        ("message.completed", {**MESSAGE, "text": "", "tool_calls": calls}),
        *(("tool.call.started", {"tool_call_id": name, "name": "read_file"}) for name in ("a", "b")),
        *(
            ("tool.call.completed", {**ENDED, "tool_call_id": name, "effect_id": name, "output": f"in {name}"})
            for name in ("b", "a")
        ),
    )
    assert page.index("$ read_file b") < page.index("in b") < page.rindex("$ read_file a") < page.index("in a")
