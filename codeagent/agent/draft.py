"""A decision in the making: facts as they are decided, the state they lead to, the effects they ask for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Literal
from uuid import UUID

from codeagent.agent.state import RunState, evolve
from codeagent.messages import commands, events, results
from codeagent.messages.conversation import ToolCall
from codeagent.messages.envelope import Event, Message, Payload
from codeagent.messages.events import Ending
from codeagent.messages.ids import derived_uuid
from codeagent.messages.values import CallTool, CollectPatch, Operation, PrepareFiles, RunStatus, VerifyPatch

EffectKind = Literal["provider", "sandbox", "timer"]
Timer = Literal["deadline", "cancel_grace", "approval_expiry"]


@dataclass(frozen=True, slots=True)
class NewEffect:
    """Something to be done and answered. A timer is an effect that is due at a moment; others are due at once."""

    id: UUID
    kind: EffectKind
    command: Payload
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What one message leads to. `state` is the state after `events`.

    `settled` are effects that are answered, `cancel_effects` asks whoever performs the run's others to stop.
    """

    state: RunState
    events: tuple[Event, ...]
    effects: tuple[NewEffect, ...]
    settled: tuple[UUID, ...]
    cancel_effects: bool

    @property
    def ends_run(self) -> bool:
        return self.state.status.terminal


_TERMINAL: dict[RunStatus, type[events.RunEnded]] = {
    RunStatus.COMPLETED: events.RunCompleted,
    RunStatus.FAILED: events.RunFailed,
    RunStatus.CANCELED: events.RunCanceled,
    RunStatus.REJECTED: events.RunRejected,
}


class Draft:
    """Mutable only while one `decide` runs."""

    def __init__(self, state: RunState, message: Message, now: datetime) -> None:
        self.state = state
        self.message = message
        self.now = now
        self._events: list[Event] = []
        self._effects: list[NewEffect] = []
        self._settled: list[UUID] = []
        self._cancel_effects = False

    @property
    def run_id(self) -> str:
        return self.message.envelope.key

    @property
    def just_spoke(self) -> bool:
        """Whether a model's message without tool calls is the newest fact."""
        newest = self._events[-1] if self._events else None
        return isinstance(newest, events.MessageCompleted) and not newest.tool_calls

    def emit(self, event: Event) -> None:
        self._events.append(event)
        self.state = evolve(self.state, event)

    def answers(self, effect_id: UUID) -> bool:
        """Whether the run waits for this effect; its ledger row then goes with this decision."""
        pending = self.state.pending
        if pending is None or pending.effect_id != effect_id:
            return False
        self._settled.append(effect_id)
        return True

    def cancel_effects(self) -> None:
        self._cancel_effects = True

    def timer(self, timer: Timer, due_at: datetime) -> None:
        timer_id = self._timer_id(timer)
        command = commands.FireTimer(run_id=self.run_id, timer_id=timer_id, timer=timer)
        self._effects.append(NewEffect(timer_id, "timer", command, due_at))

    def stop_timer(self, timer: Timer) -> None:
        """Its ledger row goes with this decision, or is not written at all."""
        timer_id = self._timer_id(timer)
        self._effects = [effect for effect in self._effects if effect.id != timer_id]
        self._settled.append(timer_id)

    def _timer_id(self, timer: Timer) -> UUID:
        return derived_uuid(self.run_id, timer)

    def step(
        self,
        name: Literal["prepare", "collect", "verify"],
        operation: PrepareFiles | CollectPatch | VerifyPatch,
        ending: Ending | None = None,
    ) -> None:
        effect_id = self._next_effect_id()
        number = 0 if name == "prepare" else self.state.step + 1
        self.emit(events.StepStarted(step=number, name=name, effect_id=effect_id, ending=ending))
        self._sandbox(effect_id, operation)

    def think(self, max_output_tokens: int) -> None:
        effect_id = self._next_effect_id()
        self.emit(events.StepStarted(step=self.state.step + 1, name="think", effect_id=effect_id))
        command = commands.GenerateReply(
            effect_id=effect_id,
            run_id=self.run_id,
            at_version=self.state.version,
            model=self.state.run.model,
            max_output_tokens=max_output_tokens,
        )
        self._effects.append(NewEffect(effect_id, "provider", command))

    def tool(self, call: ToolCall, operation: CallTool) -> None:
        effect_id = self._next_effect_id()
        self.emit(
            events.ToolCallStarted(
                tool_call_id=call.id,
                name=call.name,
                step=self.state.step,
                effect_id=effect_id,
                arguments_digest=arguments_digest(call),
            )
        )
        self._sandbox(effect_id, operation)

    def tool_failed(self, call: ToolCall, code: str, error: str, result: results.SandboxResult | None = None) -> None:
        """`result` is given where the sandbox was asked, and did not carry the call out."""
        self.emit(
            events.ToolCallFailed(
                tool_call_id=call.id,
                name=call.name[:100],
                step=self.state.step,
                effect_id=None if result is None else result.effect_id,
                attempt=0 if result is None else result.attempt,
                code=code,
                error=error,
                retryable=None if result is None else result.retryable,
            )
        )

    def end(self, ending: Ending) -> None:
        """Appends the terminal event. The ledger rows of the run all go with it."""
        state = self.state
        self.emit(
            _TERMINAL[ending.status](
                status_reason=ending.reason,
                message=ending.message,
                steps=state.model_calls,
                usage=state.usage,
                cost_usd=state.cost_usd,
                patch=state.patch,
            )
        )

    def decision(self) -> Decision:
        return Decision(
            self.state, tuple(self._events), tuple(self._effects), tuple(self._settled), self._cancel_effects
        )

    def _next_effect_id(self) -> UUID:
        return derived_uuid(self.run_id, "effect", str(self.state.version + 1))

    def _sandbox(self, effect_id: UUID, operation: Operation) -> None:
        command = commands.ExecuteOperation(
            effect_id=effect_id,
            run_id=self.run_id,
            base=self.state.base,
            checkpoint=self.state.checkpoint,
            operation=operation,
            limits=self.state.run.limits.sandbox,
            egress=self.state.egress if isinstance(operation, PrepareFiles | CallTool) else None,
        )
        self._effects.append(NewEffect(effect_id, "sandbox", command))


def arguments_digest(call: ToolCall) -> str:
    """Of the arguments as they travel: of the text, or of the name of the artifact that holds it."""
    return f"sha256:{sha256((call.arguments_ref or call.arguments).encode()).hexdigest()}"
