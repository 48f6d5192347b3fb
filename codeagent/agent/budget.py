"""When a run must stop: its limits against what it has used."""

from __future__ import annotations

from codeagent.agent.state import RunState
from codeagent.messages.events import Ending
from codeagent.messages.values import RunStatus


def exceeded(state: RunState) -> Ending | None:
    """The ending that a used-up limit demands before another model call, or None."""
    limits = state.run.limits
    if state.steps >= limits.max_steps:
        return _failed("max_turns_exceeded", f"The run used its {limits.max_steps} model calls.")
    if state.tokens >= limits.max_tokens:
        return _failed("max_tokens_exceeded", f"The run used {state.tokens} of its {limits.max_tokens} tokens.")
    if limits.max_cost_usd is not None and state.spent_usd >= limits.max_cost_usd:
        return _failed("budget_exceeded", f"The run spent {state.spent_usd} of its {limits.max_cost_usd} USD.")
    return None


def output_tokens(state: RunState, most: int) -> int:
    """Tokens the next reply may have: `most`, or what is left of the run's own limit."""
    return max(1, min(most, state.run.limits.max_tokens - state.tokens))


def commands_exceeded(state: RunState) -> Ending | None:
    """The ending that a used-up limit of the run's sandbox demands before another command, or None."""
    limits, used = state.run.limits.sandbox, state.used
    if limits is None:
        return None
    for most, have, what in (
        (limits.total_commands, used.commands, "commands"),
        (limits.total_wall_seconds, used.wall_ms / 1_000, "seconds of commands"),
        (limits.total_cpu_seconds, used.cpu_ms / 1_000, "CPU seconds of commands"),
        (limits.total_output_bytes, used.output_bytes, "bytes of output"),
    ):
        if most is not None and have >= most:
            return _failed("sandbox_limit_exceeded", f"The run used its {most} {what}.")
    return None


def command_seconds(state: RunState) -> int:
    """How long the next command may take: the run's limit of each, or what is left of all of them."""
    limits = state.run.limits
    if limits.sandbox is None or limits.sandbox.total_wall_seconds is None:
        return limits.command_timeout_seconds
    left = limits.sandbox.total_wall_seconds - state.used.wall_ms // 1_000
    return max(1, min(limits.command_timeout_seconds, left))


def _failed(reason: str, message: str) -> Ending:
    return Ending(status=RunStatus.FAILED, reason=reason, message=message)
