"""Whom a run may hand work to: the agents that its agent's version names, each given a version as the run itself is,
with all that their runs work by. So a child starts on what its first ancestor was submitted with, whatever has
changed."""

from __future__ import annotations

from dataclasses import dataclass

from codeagent.agent import mcp
from codeagent.agent.delegates import DEEPEST
from codeagent.agent_registry.agent import ANY_LIMITS, Content, run_limits
from codeagent.agent_registry.approvals import joined
from codeagent.agent_registry.canary import Unit
from codeagent.agent_registry.mcp_tools import with_read_only
from codeagent.agent_registry.resolver import Resolved
from codeagent.edge.context import EdgeContext
from codeagent.edge.model_choice import models_of
from codeagent.errors import InvalidInput
from codeagent.identity.principal import Principal
from codeagent.identity.scopes import Scope
from codeagent.messages.values import AgentDefinition, ApprovalPolicy, Delegate

MOST_BYTES = 256 << 10
"""Of all that a run's delegates say: it travels with the run, and a part of it with each child."""


def definition_given(context: EdgeContext, agent: Resolved) -> AgentDefinition | None:
    """What a run works by, with what the operator says now of its tools."""
    definition = agent.definition
    if definition is None or definition.mcp is None:
        return definition
    offers = with_read_only(definition.mcp, context.policy.mcp_servers)
    return definition.model_copy(update={"mcp": offers})


@dataclass(frozen=True, slots=True)
class Delegation:
    """Resolves what the runs of one request may hand on, and to whom. `unit` decides between versions where a canary
    runs."""

    context: EdgeContext
    caller: Principal
    unit: Unit

    async def extended(
        self, definition: AgentDefinition | None, agent: Resolved, approvals: ApprovalPolicy | None
    ) -> AgentDefinition | None:
        """The definition of a run of `agent` with everyone below it. Raises as `below`."""
        if definition is None or not agent.delegates:
            return definition
        return definition.model_copy(update={"delegates": await self.below(agent.name, agent.delegates, approvals)})

    async def below(
        self, name: str, references: tuple[str, ...], approvals: ApprovalPolicy | None
    ) -> tuple[Delegate, ...]:
        """Those that agent `name` refers to, with those that they do. They ask people about whatever `approvals` of the
        run names, and about what their own versions demand.

        Raises `InvalidInput`: `unsupported_agent` and `unsupported_model` for what cannot be had, `delegation_cycle`
        for an agent that would work for itself, `delegation_too_deep`, `delegation_too_large`.
        """
        found = await self._all(references, (name,), approvals)
        if sum(len(delegate.model_dump_json().encode()) for delegate in found) > MOST_BYTES:
            detail = f"What the agents below {name} say has more than {MOST_BYTES} bytes together."
            raise _refused(detail, "delegation_too_large")
        return found

    async def _all(
        self, references: tuple[str, ...], above: tuple[str, ...], approvals: ApprovalPolicy | None
    ) -> tuple[Delegate, ...]:
        return tuple([await self._one(reference, above, approvals) for reference in references])

    async def _one(self, reference: str, above: tuple[str, ...], approvals: ApprovalPolicy | None) -> Delegate:
        context, caller = self.context, self.caller
        drafts = caller.may(Scope.AGENTS_WRITE)
        agent = await context.agents.resolver.resolve(caller.tenant_id, reference, self.unit, drafts=drafts)
        chain = " -> ".join((*above, agent.name))
        if agent.name in above:
            raise _refused(f"An agent would hand work to itself: {chain}.", "delegation_cycle")
        if agent.delegates and len(above) >= DEEPEST:
            raise _refused(f"{chain} would hand work on, too far from the run.", "delegation_too_deep")
        definition = definition_given(context, agent)
        asks = joined(approvals, agent.approvals, mcp.changing(definition))
        if definition is not None and agent.delegates:
            below = await self._all(agent.delegates, (*above, agent.name), asks)
            definition = definition.model_copy(update={"delegates": below})
        chosen = models_of(context, agent)
        return Delegate(
            name=agent.name,
            version=agent.number,
            description=agent.description,
            definition=definition,
            model=chosen.model,
            fallbacks=chosen.fallbacks or None,
            limits=context.policy.limits.of_run(run_limits(ANY_LIMITS, agent.limits)),
            approvals=asks,
        )


async def check_delegates(context: EdgeContext, caller: Principal, name: str, content: Content) -> None:
    """Whether runs of agent `name` could have these now. Raises as `Delegation.below`."""
    delegation = Delegation(context, caller, Unit("principal", caller.id))
    try:
        await delegation.below(name, content.delegates, content.approvals)
    except InvalidInput as error:
        raise InvalidInput(error.detail, code=error.code, pointer="/delegates") from None


def _refused(detail: str, code: str) -> InvalidInput:
    return InvalidInput(detail, code=code, pointer="/agent")
