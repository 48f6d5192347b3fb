"""What a message says without what belongs to a person."""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from codeagent.messages.catalog import CURRENT, EFFECT_EVENTS, RUN_EVENTS, decode_data
from codeagent.messages.envelope import Event
from codeagent.messages.events import CancelRequested, InputRequired, RunSubmitted
from codeagent.messages.personal import Personal, holds_content, marks, without_content

EXAMPLES = Path(__file__).resolve().parents[3] / "schemas" / "examples"
CODES = {
    *(
        "agent",
        "approval_id",
        "child_run_id",
        "code",
        "credential_id",
        "dependencies",
        "description",
        "digest",
    ),
    *(
        "driver",
        "driver_version",
        "egress",
        "env_names",
        "error_reason",
        "fallbacks",
        "follows",
        "from_model",
        "id",
    ),
    *(
        "image",
        "input_schema",
        "install",
        "key",
        "limits",
        "limits_hit",
        "lock_files",
        "media_type",
        "message",
    ),
    *(
        "model",
        "name",
        "offered_digest",
        "operation",
        "policy_digest",
        "principal",
        "project_id",
    ),
    *(
        "protocol_version",
        "provider",
        "reason",
        "response_model",
        "run_id",
        "server",
        "session_id",
        "status_reason",
    ),
    *(
        "to_model",
        "tool",
        "tool_call_id",
        "tools",
        "tools_digest",
        "verdict",
        "version",
    ),
}
"""Fields of text in facts of runs that say nothing a person wrote, nor what is in their files: codes, names of ours and
of the tenant's, ids. A new field of text is marked as personal or stands here, after somebody has thought about it."""


def example(name: str) -> Any:
    path = next(EXAMPLES.glob(f"{name}.v*.json"))
    return decode_data(name, CURRENT[name].VERSION, path.read_bytes())


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_every_message_can_be_read_without_its_content(path: Path) -> None:
    name, _, _ = path.stem.rpartition(".v")
    message = decode_data(name, CURRENT[name].VERSION, path.read_bytes())
    rest = without_content(message)
    if rest is not None:
        again = decode_data(name, message.VERSION, rest)
        assert without_content(again) is None, "there is nothing left to take away"
        assert not holds_content(again)


def test_what_is_left_has_the_same_shape_and_none_of_the_words() -> None:
    submitted = example("run.submitted").model_copy(update={"task": "a secret wish"})
    rest = without_content(submitted)
    assert rest is not None
    assert b"wish" not in rest
    read = RunSubmitted.model_validate_json(rest)
    assert (read.run_id, read.model, read.limits) == (submitted.run_id, submitted.model, submitted.limits)
    assert (read.task, read.fingerprint) == ("[erased]", "")


def test_marks_are_found_inside_of_values() -> None:
    assert {"request.arguments", "request.arguments_digest"} <= set(marks(InputRequired))


def test_a_message_that_says_nothing_personal_is_left_alone() -> None:
    assert without_content(CancelRequested(principal="usr_a")) is None
    assert holds_content(CancelRequested(principal="usr_a", reason="It costs too much."))


def test_schemas_tell_what_is_personal() -> None:
    schema = CancelRequested.model_json_schema()
    assert schema["properties"]["reason"]["x-personal-data"] == "what the user wrote"


def texts(model: type[BaseModel], above: tuple[type[BaseModel], ...] = ()) -> set[str]:
    """Names of fields that may hold any text and are not marked, here and in what is inside."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        if any(isinstance(mark, Personal) for mark in field.metadata):
            continue
        for kind in _kinds(field.annotation):
            if kind is str:
                found.add(name)
            elif isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in above:
                found |= texts(kind, (*above, model))
    return found


def _kinds(annotation: Any) -> set[Any]:
    if typing.get_origin(annotation) is typing.Literal:
        return set()
    arguments = typing.get_args(annotation)
    return {annotation} if not arguments else {kind for each in arguments for kind in _kinds(each)}


@pytest.mark.parametrize("event", [*RUN_EVENTS, *EFFECT_EVENTS], ids=lambda event: event.NAME)
def test_every_text_in_a_runs_facts_is_marked_or_known_to_be_nobodys(event: type[Event]) -> None:
    assert texts(event) - CODES == set()


def test_the_list_of_what_is_nobodys_names_nothing_else() -> None:
    named = {name for event in (*RUN_EVENTS, *EFFECT_EVENTS) for name in texts(event)}
    assert json.dumps(sorted(CODES - named)) == "[]"


@pytest.mark.parametrize("message", CURRENT.values(), ids=str)
def test_what_does_not_fit_a_message_is_not_quoted_in_the_error(message: type[BaseModel]) -> None:
    """Errors end up in logs, with their traces."""
    said = {name: ["said-7Qz"] for name in message.model_fields}
    with pytest.raises(ValidationError) as refused:
        message.model_validate({**said, "unknown": "said-7Qz"}, strict=True)
    assert "said-7Qz" not in str(refused.value)
