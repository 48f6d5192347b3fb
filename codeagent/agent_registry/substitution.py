"""A run's command as another version of an agent would have given it.

The command says what a request and its agent's version came to, not which of them said what. Where it says what the
version does, the version is taken to have said it; the rest is the request's, its project's or the operator's, and
stays, within what the other version allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from codeagent.agent import mcp, tools
from codeagent.agent_registry.agent import BUILTIN, DEFAULT_LIMITS, AgentVersion, Content, definition_of
from codeagent.agent_registry.approvals import joined, ordered
from codeagent.agent_registry.mcp_tools import with_read_only
from codeagent.messages.commands import SubmitRun
from codeagent.messages.sandbox_limits import SandboxLimits
from codeagent.messages.values import AgentDefinition, ApprovalPolicy, LimitsAsked, RunLimits


@dataclass(frozen=True, slots=True)
class Substitute:
    """A version, the name of its agent, and the model of runs whose agent names none. `definition` is what a new run is
    given of it, where that is known."""

    name: str
    version: AgentVersion
    default_model: str
    definition: AgentDefinition | None = None


def substituted(command: SubmitRun, own: Content, other: Substitute) -> SubmitRun:
    """`own` is what the version says that the run had."""
    content = other.version.content
    definition = other.definition
    if definition is None and other.name not in BUILTIN:
        definition = _definition(command.definition, other.version)
    asked = _asked(command.approvals, own.approvals, tools.CHANGING | mcp.changing(command.definition))
    return command.model_copy(
        update={
            **_models(command, own, other),
            "agent": other.name,
            "agent_version": other.version.number,
            "definition": definition,
            "limits": _limits(command.limits, own.limits, content.limits),
            "approvals": joined(asked, content.approvals, mcp.changing(definition)),
        }
    )


def _definition(recorded: AgentDefinition | None, version: AgentVersion) -> AgentDefinition:
    """Of its tools of servers, those change nothing that the recorded run has as such: what the operator said when that
    began is known of no others. Nor is to whom the version hands work, but for those that the run has, too."""
    definition = definition_of(version)
    had = (recorded and recorded.mcp) or ()
    read_only = {offer.server: frozenset(tool.name for tool in offer.tools if tool.read_only) for offer in had}
    named = version.content.delegates
    known = (recorded and recorded.delegates) or ()
    kept = tuple(one for one in known if one.name in named or f"{one.name}@{one.version}" in named)
    offers = with_read_only(definition.mcp or (), read_only)
    return definition.model_copy(update={"mcp": offers or None, "delegates": kept or None})


def _models(command: SubmitRun, own: Content, other: Substitute) -> dict[str, Any]:
    content, fallbacks = other.version.content, command.fallbacks or ()
    if command.model != (own.model or other.default_model):
        return {}
    model = content.model or other.default_model
    # Of its version's, a run has those that the installation had then.
    chosen = content.fallbacks if set(fallbacks) <= set(own.fallbacks) else fallbacks
    return {"model": model, "fallbacks": tuple(name for name in chosen if name != model) or None}


def _limits(given: RunLimits, own: LimitsAsked, other: LimitsAsked) -> RunLimits:
    chosen: dict[str, Any] = {}
    for name in RunLimits.model_fields.keys() - {"sandbox"}:
        default = getattr(DEFAULT_LIMITS, name)
        chosen[name] = _limit(getattr(given, name), getattr(own, name), getattr(other, name), default)
    return RunLimits(**chosen, sandbox=_of_sandbox(given.sandbox, own.sandbox, other.sandbox))


def _of_sandbox(
    given: SandboxLimits | None, own: SandboxLimits | None, other: SandboxLimits | None
) -> SandboxLimits | None:
    had, bounds, most = ({} if limits is None else limits.said() for limits in (given, own, other))
    chosen = SandboxLimits(
        **{name: _limit(had.get(name), bounds.get(name), most.get(name), None) for name in SandboxLimits.model_fields}
    )
    return chosen if chosen.said() else None


def _limit(given: Any, own: Any, other: Any, default: Any) -> Any:
    if given == (default if own is None else own):
        return default if other is None else other
    return given if other is None or given is None else min(given, other)


def _asked(given: ApprovalPolicy | None, own: ApprovalPolicy | None, changing: frozenset[str]) -> ApprovalPolicy | None:
    """What was asked for beside what the version demands; None where that is nothing. Where it was asked for less time
    alone, whatever the run asked about stays: nobody is asked less by a guess."""
    if given is None or own is None or (given.tools == "all_changing" != own.tools):
        return given
    beside = _names(given, changing) - _names(own, changing)
    if beside:
        return given.model_copy(update={"tools": ordered(beside)})
    return None if given.expires_seconds == own.expires_seconds else given


def _names(policy: ApprovalPolicy, changing: frozenset[str]) -> frozenset[str]:
    return changing if policy.tools == "all_changing" else frozenset(policy.tools)
