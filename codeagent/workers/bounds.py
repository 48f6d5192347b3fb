"""What the commands of a worker are held to: their limits, the quota of their tenant, and the hosts they may reach."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from uuid import UUID

from codeagent import hosts
from codeagent.agent import tools
from codeagent.messages.commands import ExecuteOperation
from codeagent.messages.values import CallTool, InstallDependencies, VerifyPatch
from codeagent.messages.verification import Verification
from codeagent.quotas.reservations import Worst
from codeagent.sandboxes.limits import BUILT_IN_POLICY, LimitPolicy
from codeagent.sandboxes.protocol import Limits, SandboxFailure

Reserve = Callable[[str, UUID, Worst], Awaitable[None]]
"""Holds a tenant's command to its quota before it begins. Raises `SandboxFailure` (`quota_exceeded`)."""


async def unbounded(_tenant_id: str, _effect_id: UUID, _worst: Worst) -> None:
    """Of a worker whose tenants have no quotas."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """`policy` and `egress` are the operator's, `reserve` knows the quotas."""

    policy: LimitPolicy = BUILT_IN_POLICY
    reserve: Reserve = unbounded
    egress: tuple[str, ...] = ()

    def of(self, command: ExecuteOperation) -> Limits:
        """What an operation may use: as its run asks, and no more than the operator allows."""
        limits, operation = self.policy.of_command(command.limits), command.operation
        match operation:
            case CallTool(timeout_seconds=seconds) | VerifyPatch(verification=Verification(timeout_seconds=seconds)):
                return replace(limits, wall_seconds=float(min(seconds, self.policy.command_seconds)))
            case InstallDependencies():
                return self.policy.of_install(limits)
            case _:
                return limits

    def reach_of(self, command: ExecuteOperation) -> tuple[str, ...]:
        """What an operation's command may reach: as its run asks, and no more than the operator lists now. Raises
        `SandboxFailure` (`egress_refused`) where nothing is left of what the run asks for."""
        asked = command.egress or ()
        reach = hosts.within(asked, self.egress)
        if asked and not reach:
            detail = "the operator lets commands reach none of the agent's hosts any more"
            raise SandboxFailure(detail, reason="egress_refused", retryable=False)
        return reach

    async def admit(self, tenant_id: str, command: ExecuteOperation, limits: Limits) -> None:
        """To be awaited before a command is run; tools that run no program need no room."""
        operation = command.operation
        is_command = isinstance(operation, CallTool) and operation.call.name in tools.COMMANDS
        if is_command or isinstance(operation, VerifyPatch | InstallDependencies):
            await self.reserve(tenant_id, command.effect_id, Worst.of(limits))
