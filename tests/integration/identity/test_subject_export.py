"""What a person gets who asks for their data: all that was said in their runs, and whatever they wrote elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from codeagent import clock
from codeagent.eventlog.stored import metadata_for, prepare
from codeagent.messages.conversation import FinishReason, Usage
from codeagent.messages.envelope import Event
from codeagent.messages.events import (
    CancelRequested,
    InputReceived,
    MessageCompleted,
    RunCanceled,
    RunCompleted,
    RunSubmitted,
    ToolCallCompleted,
)
from codeagent.messages.executions import ExecStarted
from codeagent.messages.ids import exec_stream, run_stream
from codeagent.messages.subagents import Parent, SubagentStarted
from codeagent.messages.values import ApprovalDecision, RunLimits, RunStatus, Turn
from codeagent.privacy import subject_data
from tests.integration.eventlog.steps import APPROVAL, cause, commit_step, new_run, prepared, step
from tests.integration.identity.conftest import TENANT, World
from tests.integration.identity.oauth_client import OAuthClient
from tests.integration.identity.test_privacy import EXAMPLES, REQUESTS, audited, begun, user_id_of

GOLDEN = RunSubmitted.model_validate_json((EXAMPLES / "run.submitted.v1.json").read_bytes())
COMMAND = ExecStarted.model_validate_json((EXAMPLES / "sandbox.exec.started.v1.json").read_bytes())


async def says(world: World, run_id: str, subject: str, *facts: Event, actor: tuple[str, str] | None = None) -> None:
    """Facts of a run, sealed for a subject."""
    known = await world.facts(run_stream(run_id))
    kind, actor_id = actor or ("app_user", subject)
    envelope = replace(cause(run_id, TENANT), actor_type=kind, actor_id=actor_id)
    events = prepared(run_id, len(known), facts, envelope, await world.database.subjects.of(TENANT, subject))
    await commit_step(world.database, replace(step(run_id, len(known), tenant=TENANT), cause=envelope, events=events))


async def submits(world: World, user_id: str, task: str, **more: Any) -> str:
    run_id = new_run()
    fact = GOLDEN.model_copy(update={"run_id": run_id, "task": task, "principal": user_id, "history": None, **more})
    parent = more.get("parent")
    await says(world, run_id, user_id, fact, actor=None if parent is None else ("run", parent.run_id))
    return run_id


def said(text: str) -> MessageCompleted:
    return MessageCompleted(
        effect_id=clock.new_uuid(),
        step=1,
        attempt=1,
        text=text,
        finish_reason=FinishReason.STOP,
        model="m",
        usage=Usage(),
    )


def wrote(output: str) -> ToolCallCompleted:
    return ToolCallCompleted(
        tool_call_id="c",
        name="shell",
        step=1,
        effect_id=clock.new_uuid(),
        attempt=1,
        output=output,
        reason="ok",
        checkpoint="sha256:" + "c" * 64,
    )


async def commands(world: World, run_id: str, user_id: str, command: str) -> None:
    """A command in a sandbox, in the stream of its own."""
    effect_id, made = clock.new_uuid(), step(run_id, 0, tenant=TENANT)
    stored = prepare(
        COMMAND.model_copy(update={"effect_id": effect_id, "run_id": run_id, "argv": ("sh", "-c", command)}),
        stream_id=exec_stream(effect_id),
        version=1,
        event_id=clock.new_uuid(),
        tenant_id=TENANT,
        occurred_at=clock.now(),
        metadata=metadata_for(made.cause, run_id),
        key=await world.database.subjects.of(TENANT, user_id),
    )
    await commit_step(world.database, replace(made, stream_id=exec_stream(effect_id), events=[stored]))


async def exported(world: World, owner: OAuthClient, subject: str, kind: str = "access") -> tuple[dict[str, Any], str]:
    request = await begun(owner, kind, subject)
    await audited(world)
    answer = await owner.get(f"{REQUESTS}/{request['id']}/export")
    return json.loads(answer.text), answer.text


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event.get("type", "unreadable") for event in events]


async def test_all_that_was_said_in_a_run_of_the_subjects_is_there_and_what_others_said_in_it_is_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject_data, "PAGE", 2)
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    before = Turn(task="foreign turn", answer="foreign answer", status=RunStatus.COMPLETED)
    run_id = await submits(world, theirs, "their task", history=(before,))
    await says(world, run_id, theirs, said("their model"), wrote("their output"), actor=("system", "system"))
    await says(
        world,
        run_id,
        world.user_id,
        InputReceived(
            approval_id=APPROVAL, decision=ApprovalDecision.REJECT, comment="foreign no", principal=world.user_id
        ),
    )
    for number in range(3):
        await commands(world, run_id, theirs, f"their command {number}")
    await says(world, run_id, theirs, RunCompleted(message="their result"), actor=("system", "system"))
    await commands(world, await submits(world, world.user_id, "foreign task"), world.user_id, "foreign command")
    document, text = await exported(world, owner, theirs)
    [run] = document["runs"]
    assert (run["id"], run["task"], run["message"]) == (run_id, "their task", "their result")
    assert types(run["events"]) == [
        "run.submitted",
        "message.completed",
        "tool.call.completed",
        "run.completed",
        *["sandbox.exec.started"] * 3,
    ]
    assert run["events"][1]["data"]["text"] == "their model"
    for words in ("their output", *(f"their command {number}" for number in range(3))):
        assert text.count(words) == 1, words
    assert document["written_elsewhere"] == []
    assert "foreign" not in text
    assert world.user_id not in text


async def test_runs_that_were_started_for_the_subjects_are_there(world: World) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    first = await submits(world, theirs, "first task")

    async def child(of: str, task: str) -> str:
        effect_id = clock.new_uuid()
        parent = Parent(run_id=of, effect_id=effect_id, principal=theirs, deadline_at=clock.now())
        run_id = await submits(world, theirs, task, parent=parent)
        started = SubagentStarted(
            tool_call_id="c",
            effect_id=effect_id,
            child_run_id=run_id,
            agent="coder",
            agent_version=1,
            limits=RunLimits(),
            deadline_at=clock.now(),
        )
        await says(world, of, theirs, started, actor=("system", "system"))
        return run_id

    second = await child(first, "second task")
    third = await child(second, "third task")
    await says(world, third, theirs, said("third words"), actor=("system", "system"))
    document, _ = await exported(world, owner, theirs)
    assert [(run["id"], run["task"]) for run in document["runs"]] == [
        (first, "first task"),
        (second, "second task"),
        (third, "third task"),
    ]
    assert document["runs"][2]["events"][-1]["data"]["text"] == "third words"


async def test_what_the_subject_wrote_in_runs_of_others_is_there_and_no_more_of_these(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject_data, "PAGE", 1)
    owner, colleague = await world.owner(), await world.colleague()
    theirs = await user_id_of(colleague)
    run_id = await submits(world, world.user_id, "foreign task")
    answer = InputReceived(
        approval_id=APPROVAL, decision=ApprovalDecision.REJECT, comment="their comment", principal=theirs
    )
    await says(world, run_id, theirs, answer)
    await says(world, run_id, theirs, CancelRequested(principal=theirs, reason="their reason"))
    await says(world, run_id, world.user_id, RunCanceled(), actor=("system", "system"))
    document, text = await exported(world, owner, theirs)
    found = [(item["type"], item["run_id"], item["data"]) for item in document["written_elsewhere"]]
    assert [(name, run) for name, run, _ in found] == [("run.input_received", run_id), ("run.cancel_requested", run_id)]
    assert (found[0][2]["comment"], found[1][2]["reason"]) == ("their comment", "their reason")
    assert document["runs"] == []
    assert "foreign" not in text
    owners, text = await exported(world, owner, world.user_id, "portability")
    assert [(run["status"], run["message"]) for run in owners["runs"]] == [("canceled", "")]
    assert "their comment" not in text
    assert "their reason" not in text


@pytest.mark.parametrize("place", [1, 2])
async def test_an_event_that_cannot_be_read_is_named_and_ends_nothing(world: World, place: int) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    run_id = await submits(world, theirs, "their task")
    await says(world, run_id, theirs, said("their model"), wrote("their output"))
    await commands(world, run_id, theirs, "their command")
    damage = "UPDATE events SET sealed = set_byte(sealed, 50, 255 - get_byte(sealed, 50)) WHERE stream_id = $1"
    await world.sql(f"{damage} AND stream_version = $2", run_stream(run_id), place)
    document, text = await exported(world, owner, theirs)
    [run] = document["runs"]
    [broken] = [event for event in run["events"] if "unreadable" in event]
    stored = (await world.facts(run_stream(run_id)))[place - 1]
    assert broken == {"id": str(stored.id), "unreadable": "corrupt_row"}
    assert run["version"] == 3
    assert "their output" in text
    assert "their command" in text


async def test_of_a_run_whose_content_was_retired_there_is_what_was_not_content(world: World) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    run_id = await submits(world, theirs, "their task")
    await world.sql("UPDATE events SET sealed = NULL WHERE stream_id = $1", run_stream(run_id))
    document, _ = await exported(world, owner, theirs)
    assert [(run["id"], run["task"], run["events"]) for run in document["runs"]] == [(run_id, "[erased]", [])]
    assert document["written_elsewhere"] == []


async def test_what_was_said_before_anything_was_sealed_is_there(world: World) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    run_id = new_run()
    envelope = replace(cause(run_id, TENANT), actor_type="app_user", actor_id=theirs)
    submitted = GOLDEN.model_copy(update={"run_id": run_id, "task": "their task", "principal": theirs})
    foreign = CancelRequested(principal=world.user_id, reason="foreign")
    events = prepared(run_id, 0, [submitted, said("their model"), foreign], envelope)
    await commit_step(world.database, replace(step(run_id, 0, tenant=TENANT), cause=envelope, events=events))
    document, text = await exported(world, owner, theirs)
    assert types(document["runs"][0]["events"]) == ["run.submitted", "message.completed"]
    assert "foreign" not in text
