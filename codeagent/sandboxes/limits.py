"""What an operator lets commands use: how much where nobody says, and the most that anybody may say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from codeagent.errors import InvalidInput
from codeagent.messages.sandbox_limits import SandboxLimits
from codeagent.messages.values import LimitsAsked, RunLimits
from codeagent.sandboxes.protocol import Limits

_ORDINARY = Limits()
NOTHING = SandboxLimits()
BUILT_IN = SandboxLimits(
    cpu_millicores=int(_ORDINARY.cpu_cores * 1_000),
    memory_bytes=_ORDINARY.memory_bytes,
    processes=_ORDINARY.processes,
    open_files=_ORDINARY.open_files,
    workspace_bytes=_ORDINARY.workspace_bytes,
    workspace_inodes=_ORDINARY.workspace_inodes,
    dependencies_bytes=_ORDINARY.dependencies_bytes,
    output_bytes=_ORDINARY.output_hard_bytes,
)
"""Of installations that say nothing. Totals of a run are then not bounded."""


@dataclass(frozen=True)
class LimitPolicy:
    """`maxima` bound what runs, agents and projects may ask for; where one says nothing, the default is the most, so
    that others may lower it and nobody raise it. `command_seconds` bounds the time limit of each command,
    `install_seconds` is that of installing dependencies."""

    defaults: SandboxLimits = NOTHING
    maxima: SandboxLimits = NOTHING
    command_seconds: int = 1_800
    install_seconds: int = 900

    @cached_property
    def most(self) -> SandboxLimits:
        return self.maxima.over(self.defaults).over(BUILT_IN)

    def check(self, asked: LimitsAsked) -> None:
        """Raises `InvalidInput` (`limit_exceeded`) for more than the operator allows."""
        seconds = asked.command_timeout_seconds
        if seconds is not None and seconds > self.command_seconds:
            raise _too_much("command_timeout_seconds", self.command_seconds)
        if asked.sandbox is not None and (found := asked.sandbox.first_above(self.most)) is not None:
            raise _too_much(f"sandbox/{found[0]}", found[1])

    def of_run(self, limits: RunLimits) -> RunLimits:
        """What a run is given: what was asked for, else the operator's defaults, and no more than the operator allows
        now. Where nobody says anything, it is left to the sandbox's worker."""
        chosen = (limits.sandbox or NOTHING).over(self.defaults).lowered(self.most)
        seconds = min(limits.command_timeout_seconds, self.command_seconds)
        return limits.model_copy(
            update={"sandbox": chosen if chosen.said() else None, "command_timeout_seconds": seconds}
        )

    def of_command(self, limits: SandboxLimits | None) -> Limits:
        """The bounds that a command of a run is held to, whatever was asked for elsewhere."""
        chosen = (limits or NOTHING).over(self.defaults).over(BUILT_IN).lowered(self.most)
        return applied(chosen)

    def of_install(self, command: Limits) -> Limits:
        """Those of a command, for one that installs dependencies: what it installs lies in memory beside it."""
        memory = command.memory_bytes + command.dependencies_bytes
        return replace(command, memory_bytes=memory, wall_seconds=float(self.install_seconds))


BUILT_IN_POLICY = LimitPolicy()


def _too_much(name: str, most: int) -> InvalidInput:
    detail = f"The operator allows {most} at most."
    return InvalidInput(detail, code="limit_exceeded", pointer=f"/limits/{name}")


def applied(chosen: SandboxLimits, limits: Limits = _ORDINARY) -> Limits:
    """`limits` with all that `chosen` says of one command."""
    said = chosen.said()
    output = said.get("output_bytes", limits.output_hard_bytes)
    return replace(
        limits,
        cpu_cores=said.get("cpu_millicores", limits.cpu_cores * 1_000) / 1_000,
        memory_bytes=said.get("memory_bytes", limits.memory_bytes),
        processes=said.get("processes", limits.processes),
        open_files=said.get("open_files", limits.open_files),
        workspace_bytes=said.get("workspace_bytes", limits.workspace_bytes),
        workspace_inodes=said.get("workspace_inodes", limits.workspace_inodes),
        dependencies_bytes=said.get("dependencies_bytes", limits.dependencies_bytes),
        output_hard_bytes=output,
        output_kept_bytes=min(limits.output_kept_bytes, output),
    )
