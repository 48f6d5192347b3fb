"""Tools of MCP servers in a run: offered as pinned, asked about, called one by one, and what their answers lead to."""

from __future__ import annotations

import json

import pytest

from codeagent.agent.approvals import REJECTED
from codeagent.agent.draft import Decision
from codeagent.agent.mcp_calls import LOST
from codeagent.agent.prompt import Transcript, build, offered
from codeagent.messages import events
from codeagent.messages.conversation import ToolMessage
from codeagent.messages.mcp import McpTool, McpTools, digest_of
from codeagent.messages.mcp_calls import CallMcpTool, McpResult
from codeagent.messages.values import AgentDefinition, ApprovalDecision, ApprovalPolicy, Outcome, RunStatus
from tests.unit.agent.scenario import DIGEST, RUN, Scenario, call, names
from tests.unit.agent.test_replay import Recorded, again, only

SCHEMA = {"type": "object", "properties": {"query": {"type": "string"}}}
SEARCH = McpTool(name="search", description="Search the docs.", input_schema=SCHEMA, read_only=True)
FILE = McpTool(name="file", description="File a ticket.", input_schema=SCHEMA)
OFFER = McpTools(server="docs", digest=digest_of([SEARCH, FILE]), tools=(FILE, SEARCH))
HELPED = AgentDefinition(
    id="agt_helped", digest=DIGEST, instructions="", tools=("shell", "read_file", "submit"), mcp=(OFFER,)
)
QUESTION = call("mcp__docs__search", query="retries")
TICKET = call("mcp__docs__file", query="a bug")


def thinking(approvals: ApprovalPolicy | None = None) -> Scenario:
    run = Scenario(definition=HELPED, approvals=approvals)
    run.prepared()
    return run


def answer(run: Scenario, outcome: Outcome = Outcome.DONE, **said: object) -> Decision:
    return run.when(McpResult(effect_id=run.open_effect.id, run_id=RUN, attempt=1, outcome=outcome, **said))


def told(run: Scenario) -> Transcript:
    transcript = Transcript()
    for event in run.events:
        transcript.add(event)
    return transcript


def test_a_model_is_offered_the_tools_just_as_they_were_pinned_and_told_whose_they_are() -> None:
    specs = {spec.name: spec for spec in offered(told(thinking()))}
    assert list(specs) == ["shell", "read_file", "submit", "mcp__docs__file", "mcp__docs__search"]
    search = specs["mcp__docs__search"]
    assert search.parameters == SCHEMA
    assert search.description.endswith("\nSearch the docs.")
    assert "server docs" in search.description


def test_a_call_goes_to_whoever_asks_servers_with_what_was_pinned() -> None:
    run = thinking()
    decision = run.model(QUESTION)
    assert names(decision) == ["message.completed", "tool.call.started"]
    [effect] = decision.effects
    command = effect.command
    assert isinstance(command, CallMcpTool)
    assert (effect.kind, command.server, command.tool, command.read_only) == ("mcp", "docs", "search", True)
    assert (command.pin.tools, command.pin.digest) == (("file", "search"), OFFER.digest)
    assert json.loads(command.call.arguments) == {"query": "retries"}


def test_what_comes_back_is_told_to_the_model_and_leaves_the_files_as_they_are() -> None:
    run = thinking()
    run.model(call("shell", command="touch x"))
    run.sandbox(checkpoint=DIGEST)
    run.model(QUESTION)
    decision = answer(run, output="Two pages.")
    assert names(decision) == ["tool.call.completed", "run.step.started"]
    assert [effect.kind for effect in decision.effects] == ["provider"]
    assert run.state.checkpoint == DIGEST
    last = build(told(run), 100_000)[-1]
    assert isinstance(last, ToolMessage)
    assert (last.text, last.is_error) == ("Two pages.", False)


def test_the_next_call_of_the_message_waits_for_the_one_before() -> None:
    run = thinking()
    first = run.model(QUESTION, call("read_file", "c2", path="x"))
    assert [effect.kind for effect in first.effects] == ["mcp"]
    assert [effect.kind for effect in answer(run, output="x").effects] == ["sandbox"]


@pytest.mark.parametrize(
    ("outcome", "said", "code", "text"),
    [
        (Outcome.FAILED, {"error_reason": "mcp_tools_changed", "error": "Anew."}, "mcp_tools_changed", "Anew."),
        (Outcome.WORKER_LOST, {}, "worker_lost", LOST),
    ],
)
def test_a_call_that_was_not_made_fails_and_the_run_goes_on(
    outcome: Outcome, said: dict[str, str], code: str, text: str
) -> None:
    run = thinking()
    run.model(QUESTION)
    decision = answer(run, outcome, **said)
    [failed] = [event for event in decision.events if isinstance(event, events.ToolCallFailed)]
    assert (failed.code, failed.error, failed.effect_id) == (code, text, run.events[-3].effect_id)  # type: ignore[attr-defined]
    assert [effect.kind for effect in decision.effects] == ["provider"]


def test_a_tool_that_says_that_it_failed_is_an_error_to_the_model() -> None:
    run = thinking()
    run.model(QUESTION)
    answer(run, output="no", is_error=True)
    last = build(told(run), 100_000)[-1]
    assert isinstance(last, ToolMessage)
    assert last.is_error


def test_an_answer_that_comes_twice_counts_once() -> None:
    run = thinking()
    run.model(QUESTION)
    first = McpResult(effect_id=run.open_effect.id, run_id=RUN, attempt=1, outcome=Outcome.DONE, output="x")
    run.when(first)
    assert run.when(first).events == ()


@pytest.mark.parametrize(
    ("arguments", "code"), [("{", "malformed_arguments"), ("[1]", "invalid_arguments"), ("NaN", "malformed_arguments")]
)
def test_arguments_that_are_no_object_are_not_sent(arguments: str, code: str) -> None:
    run = thinking()
    decision = run.model(QUESTION.model_copy(update={"arguments": arguments}))
    assert [event.code for event in decision.events if isinstance(event, events.ToolCallFailed)] == [code]
    assert [effect.kind for effect in decision.effects] == ["provider"]


@pytest.mark.parametrize("name", ["mcp__docs__delete", "mcp__other__search", "mcp__", "search"])
def test_a_tool_that_was_not_pinned_is_none(name: str) -> None:
    decision = thinking().model(call(name))
    [failed] = [event for event in decision.events if isinstance(event, events.ToolCallFailed)]
    assert failed.code == "unsupported_tool"
    assert "mcp__docs__search" in failed.error


def test_an_agent_without_such_tools_has_none() -> None:
    run = Scenario()
    run.prepared()
    assert [effect.kind for effect in run.model(QUESTION).effects] == ["provider"]


def test_people_are_asked_about_tools_that_may_change_something_and_about_those_they_name() -> None:
    everything = ApprovalPolicy(tools="all_changing")
    assert [effect.kind for effect in thinking(everything).model(QUESTION).effects] == ["mcp"]
    run = thinking(everything)
    assert "run.input_required" in names(run.model(TICKET))
    assert [effect.kind for effect in run.answer().effects if effect.kind != "timer"] == ["mcp"]
    named = thinking(ApprovalPolicy(tools=("mcp__docs__search",)))
    assert "run.input_required" in names(named.model(QUESTION))
    assert REJECTED in [
        event.code for event in named.answer(ApprovalDecision.REJECT).events if isinstance(event, events.ToolCallFailed)
    ]


def test_a_cancel_and_a_deadline_end_a_run_that_waits_for_a_server() -> None:
    canceled = thinking()
    canceled.model(TICKET)
    assert canceled.cancel().cancel_effects
    answer(canceled, Outcome.CANCELED)
    assert canceled.state.status is RunStatus.CANCELED
    late = thinking()
    late.model(TICKET)
    late.later(1_800)
    assert late.timer("deadline").cancel_effects
    decision = answer(late, Outcome.CANCELED)
    assert (names(decision), [effect.kind for effect in decision.effects]) == (["run.step.started"], ["sandbox"])
    assert late.collected().state.status_reason == "deadline_exceeded"


def test_a_run_with_such_calls_is_told_again_from_its_stream_and_another_pin_is_a_difference() -> None:
    run = Recorded(definition=HELPED)
    run.prepared()
    run.model(QUESTION)
    answer(run, output="Two pages.", is_error=True, duration_seconds=0.5)
    run.model(TICKET.model_copy(update={"id": "c2"}))
    answer(run, Outcome.FAILED, error_reason="mcp_tools_changed", error="Anew.")
    run.model(TICKET.model_copy(update={"id": "c3"}))
    answer(run, Outcome.WORKER_LOST)
    run.model(call("submit", "c4", summary="done"))
    run.collected()
    done = again(run.stream)
    assert (done.divergences, done.not_reproduced_at, done.decisions) == ((), None, done.recorded_decisions)
    repinned = OFFER.model_copy(update={"digest": DIGEST})
    found = only(again(run.stream, definition=HELPED.model_copy(update={"mcp": (repinned,)})))
    assert (found.kind, [difference.pointer for difference in found.differs]) == ("terms", ["/tools_digest"])
