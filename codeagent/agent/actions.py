"""What a decision has the run do next, as plain values that can be compared and shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codeagent.agent.draft import Decision, NewEffect, Order
from codeagent.messages import commands, events
from codeagent.messages.conversation import ToolCall
from codeagent.messages.envelope import Event
from codeagent.messages.mcp_calls import CallMcpTool
from codeagent.messages.values import CallTool

LONGEST_SHOWN = 200
"""Characters of a value in a difference."""
MOST_DIFFERENCES = 20


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do. `what` names it: `call_model`, `run_tool`, `delegate`, `ask`, `refuse_call`, `prepare`,
    `collect`, `verify` or `end`. `does` is what is done, `terms` on which terms; where they alone differ, the same is
    done."""

    what: str
    does: Mapping[str, Any]
    terms: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        return {"action": self.what, **self.does, **self.terms}


@dataclass(frozen=True, slots=True)
class Difference:
    """A value at a JSON pointer of two documents; None where there is none. Long texts are excerpts."""

    pointer: str
    recorded: Any
    other: Any


def actions_of(decision: Decision) -> tuple[Action, ...]:
    """In the order in which they were decided. None for a message that changed nothing, or only time."""
    told = [action for event in decision.events if (action := _told(event)) is not None]
    asked = [action for effect in decision.effects if (action := _asked(effect, decision.events)) is not None]
    asked += [action for order in decision.orders if (action := _ordered(order)) is not None]
    return (*told, *asked, *([Action("stop", {}, {})] if decision.cancel_effects else []))


def _told(event: Event) -> Action | None:
    match event:
        case events.ToolCallFailed(effect_id=None):
            return Action(
                "refuse_call", {"tool_call_id": event.tool_call_id, "tool": event.name, "code": event.code}, {}
            )
        case events.InputRequired(request=request):
            does = {"tool_call_id": request.tool_call_id, "tool": request.tool, "arguments": request.arguments}
            return Action("ask", does, {"expires_at": request.expires_at.isoformat()})
        case events.RunEnded():
            return Action("end", {"status": event.NAME.removeprefix("run."), "reason": event.status_reason}, {})
        case _:
            return None


def _asked(effect: NewEffect, facts: Sequence[Event]) -> Action | None:
    match effect.command:
        case commands.GenerateReply() as call:
            fallbacks = list(call.fallbacks or ())
            terms = {"model": call.model, "fallbacks": fallbacks, "max_output_tokens": call.max_output_tokens}
            return Action("call_model", {}, terms)
        case commands.ExecuteOperation() as execute:
            return _operation(execute, facts)
        case CallMcpTool() as asked:
            return Action("run_tool", _call(asked.call), {"tools_digest": asked.pin.digest})
        case _:
            return None


def _ordered(order: Order) -> Action | None:
    """Of what other runs are told, to start one is an action of its own; a stop belongs to that of the run itself."""
    if not isinstance(order.data, commands.SubmitRun):
        return None
    child = order.data
    terms = {"agent_version": child.agent_version, "model": child.model, "limits": child.limits.model_dump(mode="json")}
    return Action("delegate", {"agent": child.agent, "task": child.task}, terms)


def _operation(execute: commands.ExecuteOperation, facts: Sequence[Event]) -> Action:
    limits = None if execute.limits is None else execute.limits.model_dump(mode="json")
    terms = {"limits": limits, "egress": None if execute.egress is None else list(execute.egress)}
    operation = execute.operation
    if isinstance(operation, CallTool):
        return Action("run_tool", _call(operation.call), {"timeout_seconds": operation.timeout_seconds, **terms})
    ending = next((fact.ending for fact in reversed(facts) if isinstance(fact, events.StepStarted)), None)
    does = {} if ending is None else {"ending": {"status": ending.status.value, "reason": ending.reason}}
    return Action(operation.kind, does, terms)


def _call(call: ToolCall) -> dict[str, Any]:
    arguments: dict[str, Any] = {"arguments": call.arguments}
    if call.arguments_ref is not None:
        arguments = {"arguments_ref": call.arguments_ref}
    return {"tool_call_id": call.id, "tool": call.name, **arguments}


def differences(recorded: Any, other: Any, pointer: str = "") -> tuple[Difference, ...]:
    """Where two JSON documents differ, the first of it."""
    found = list(_differences(recorded, other, pointer))
    return tuple(found[:MOST_DIFFERENCES])


def _differences(recorded: Any, other: Any, pointer: str) -> Iterator[Difference]:
    if isinstance(recorded, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys((*recorded, *other)):
            yield from _differences(recorded.get(key), other.get(key), f"{pointer}/{_escaped(str(key))}")
    elif recorded != other:
        yield Difference(pointer, shown(recorded), shown(other))


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def shown(value: Any) -> Any:
    """The value, or an excerpt of it where it is long."""
    if isinstance(value, str) and len(value) > LONGEST_SHOWN:
        return f"{value[:LONGEST_SHOWN]} [...]"
    if isinstance(value, Mapping):
        return {key: shown(item) for key, item in value.items()}
    return value
