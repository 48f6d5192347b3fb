"""A run that was given a version of an agent: what it is told, and what it may call."""

from __future__ import annotations

import json

import pytest

from codeagent.agent import tools
from codeagent.agent.prompt import INSTRUCTIONS, Transcript, build, offered
from codeagent.messages import commands, events
from codeagent.messages.catalog import decode_data, encode_data
from codeagent.messages.conversation import ToolCall
from codeagent.messages.values import AgentDefinition, Outcome
from tests.unit.agent.scenario import DIGEST, Scenario, call

READER = AgentDefinition(
    id="agt_reader", digest=DIGEST, instructions="Report {all} you find.", tools=("read_file", "submit")
)


def test_only_the_versions_tools_are_offered() -> None:
    run = Scenario(definition=READER)
    run.submit()
    assert [spec.name for spec in offered(transcript(run))] == ["read_file", "submit"]
    built_in = Scenario()
    built_in.submit()
    assert [spec.name for spec in offered(transcript(built_in))] == list(tools.TOOLS)


def transcript(run: Scenario) -> Transcript:
    told = Transcript()
    for event in run.events:
        told.add(event)
    return told


def test_the_versions_instructions_stand_in_the_prompt_behind_our_own_and_marked() -> None:
    run = Scenario(definition=READER)
    run.submit()
    prompt = build(transcript(run), 100_000)[0].text
    assert prompt.startswith(INSTRUCTIONS)
    assert "<guidance>\nReport {all} you find.\n</guidance>" in prompt
    silent = Scenario(definition=READER.model_copy(update={"instructions": ""}))
    silent.submit()
    assert build(transcript(silent), 100_000)[0].text == INSTRUCTIONS


@pytest.mark.parametrize("call_of_another", [call("shell", command="ls"), call("no_such_tool")])
def test_a_call_of_another_tool_is_answered_as_one_of_an_unknown_tool(call_of_another: ToolCall) -> None:
    run = Scenario(definition=READER)
    run.prepared()
    decision = run.model(call_of_another)
    [failed] = [event for event in decision.events if isinstance(event, events.ToolCallFailed)]
    assert failed.code == "unsupported_tool"
    assert failed.error.endswith("Tools: read_file, submit.")
    assert [effect.kind for effect in decision.effects] == ["provider"]


def test_arguments_that_are_too_long_to_look_at_do_not_let_another_tool_through() -> None:
    run = Scenario(definition=READER)
    run.prepared()
    decision = run.model(call("shell", command="ls").model_copy(update={"arguments_ref": DIGEST}))
    assert [event.code for event in decision.events if isinstance(event, events.ToolCallFailed)] == ["unsupported_tool"]
    assert [effect.kind for effect in decision.effects] == ["provider"]


def test_a_tool_of_the_version_is_carried_out() -> None:
    run = Scenario(definition=READER)
    run.prepared()
    decision = run.model(call("read_file", path="README.md"))
    assert [effect.kind for effect in decision.effects] == ["sandbox"]


def test_what_its_commands_may_reach_goes_with_every_operation_that_needs_it_and_the_model_is_told() -> None:
    hosts = ("*.pythonhosted.org:443", "pypi.org:443")
    run = Scenario(definition=READER.model_copy(update={"tools": ("shell", "submit"), "egress": hosts}))
    run.prepared()
    run.model(call("shell", command="ls"))
    run.sandbox()
    run.model(call("submit", summary=""))
    sent = [effect.command for effect in run.effects if isinstance(effect.command, commands.ExecuteOperation)]
    told = [(command.operation.kind, command.egress) for command in sent]
    assert told == [("prepare", hosts), ("tool", hosts), ("collect", None)]
    [shell, _] = offered(transcript(run))
    assert "The network leads to *.pythonhosted.org:443, pypi.org:443 only, by HTTPS." in shell.description


def test_without_such_hosts_there_is_no_network_and_no_word_of_one_in_the_commands() -> None:
    for definition in (None, READER.model_copy(update={"tools": ("shell",)})):
        run = Scenario(definition=definition)
        run.submit()
        assert "There is no network." in offered(transcript(run))[0].description
        assert b"egress" not in encode_data(run.open_effect.command)


@pytest.mark.parametrize("reason", ["egress_refused", "egress_unsupported"])
def test_a_run_whose_hosts_cannot_be_reached_ends_by_that_name(reason: str) -> None:
    run = Scenario(definition=READER)
    run.submit()
    run.sandbox(Outcome.FAILED, error_reason=reason, error="why")
    [ended] = [event for event in run.events if isinstance(event, events.RunFailed)]
    assert (ended.status_reason, ended.message) == (reason, "why")


def test_a_run_of_the_built_in_agent_is_stored_as_it_always_was() -> None:
    run = Scenario()
    run.submit()
    [submitted] = [event for event in run.events if isinstance(event, events.RunSubmitted)]
    assert "definition" not in json.loads(encode_data(submitted))


def test_a_definition_survives_the_command_and_the_fact() -> None:
    run = Scenario(definition=READER)
    command = run.command()
    sent = decode_data(commands.SubmitRun.NAME, 1, encode_data(command))
    run.when(sent)
    [submitted] = [event for event in run.events if isinstance(event, events.RunSubmitted)]
    stored = decode_data(events.RunSubmitted.NAME, 1, encode_data(submitted))
    assert isinstance(stored, events.RunSubmitted)
    assert stored.definition == READER
