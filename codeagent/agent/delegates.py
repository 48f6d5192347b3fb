"""The agents that an agent's version may hand work to: what a model is told of them, and which one a call means. Pure,
as all here: nothing is started."""

from __future__ import annotations

from codeagent.agent import tools
from codeagent.messages.conversation import ToolCall, ToolSpec
from codeagent.messages.values import AgentDefinition, Delegate

MOST = 8
"""Agents that one version may name."""
DEEPEST = 2
"""Children of a run may have children, and those none."""
_DESCRIPTION = """\
Hand a task to another agent, which works on a copy of the files as they are now, with at most half of what is left of \
your budget. Returns its last words; if it completes, its files take the place of yours. Tell it all that it needs to \
know: it sees nothing of this conversation. Agents:
{agents}"""


def of(definition: AgentDefinition | None) -> tuple[Delegate, ...]:
    return (definition and definition.delegates) or ()


def names(definition: AgentDefinition | None) -> tuple[str, ...]:
    """The tool that hands work on, where there is somebody to hand it to."""
    return (tools.Delegate.TOOL,) if of(definition) else ()


def specs(definition: AgentDefinition | None) -> tuple[ToolSpec, ...]:
    """The tool as offered to a model."""
    known = of(definition)
    if not known:
        return ()
    agents = "\n".join(f"- {delegate.name}: {delegate.description or '-'}" for delegate in known)
    parameters = {
        "type": "object",
        "properties": {
            "task": {"type": "string", "minLength": 1, "maxLength": 32_000},
            "agent": {
                "type": "string",
                "enum": [delegate.name for delegate in known],
                "description": "May be left out where there is one.",
            },
            "budget": {
                "type": "object",
                "properties": {
                    "cost_usd": {"type": "number", "exclusiveMinimum": 0},
                    "max_steps": {"type": "integer", "minimum": 1},
                },
                "additionalProperties": False,
                "description": "The most it may use; without it half of what is left.",
            },
        },
        "required": ["task"],
        "additionalProperties": False,
    }
    return (ToolSpec(name=tools.Delegate.TOOL, description=_DESCRIPTION.format(agents=agents), parameters=parameters),)


def parse(call: ToolCall) -> tools.Delegate:
    """The call's arguments. Raises `tools.BadToolCall`."""
    if call.arguments_ref:
        raise tools.BadToolCall("invalid_arguments", "The arguments are too long to hand on.")
    return tools.read(tools.Delegate, call)


def chosen(definition: AgentDefinition | None, named: str | None) -> Delegate:
    """Whom a call means. Raises `tools.BadToolCall`."""
    known = of(definition)
    if named is None and len(known) == 1:
        return known[0]
    found = next((delegate for delegate in known if delegate.name == named), None)
    if found is None:
        there = ", ".join(delegate.name for delegate in known)
        told = "Name the agent" if named is None else f"There is no agent {named!r} to hand work to"
        raise tools.BadToolCall("unknown_delegate", f"{told}: {there}.")
    return found
