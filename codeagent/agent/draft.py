"""A decision in the making: facts as they are decided, the state they lead to, the effects they ask for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Literal
from uuid import UUID

from codeagent.agent.state import Pending, RunState, evolve
from codeagent.messages import commands, events, results
from codeagent.messages.conversation import ToolCall
from codeagent.messages.envelope import Event, Message, Payload
from codeagent.messages.events import Ending
from codeagent.messages.ids import derived_uuid
from codeagent.messages.loop_events import RunCompacted
from codeagent.messages.mcp_calls import McpResult
from codeagent.messages.values import CallTool, Operation, PrepareFiles, RunStatus

EffectKind = Literal["provider", "sandbox", "mcp", "timer", "child"]


@dataclass(frozen=True, slots=True)
class NewEffect:
    """Something to be done and answered. What is due at a moment is a timer, or a child run, which should have answered
    by then; all else is due at once."""

    id: UUID
    kind: EffectKind
    command: Payload
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A message to another run, its parent or its child: sent again until that has handled it."""

    id: UUID
    run_id: str
    data: Payload
    expires_at: datetime | None = None


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
    orders: tuple[Order, ...] = ()

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
        self._orders: list[Order] = []
        self.stops_effects = False

    @property
    def run_id(self) -> str:
        return self.message.envelope.key

    @property
    def newest(self) -> Event | None:
        """The last fact that was decided."""
        return self._events[-1] if self._events else None

    @property
    def just_spoke(self) -> bool:
        """Whether a model's message without tool calls is the newest fact."""
        return isinstance(self.newest, events.MessageCompleted) and not self.newest.tool_calls

    def emit(self, event: Event) -> None:
        self._events.append(event)
        self.state = evolve(self.state, event)

    def answers(self, effect_id: UUID) -> Pending | None:
        """What the run waits for, if it is this effect; its ledger row then goes with this decision."""
        pending = next((pending for pending in self.state.open if pending.effect_id == effect_id), None)
        if pending is not None:
            self._settled.append(effect_id)
        return pending

    def cancel_effects(self) -> None:
        self.stops_effects = True

    def order(self, order: Order) -> None:
        self._orders.append(order)

    def timer(self, timer: commands.Timer, due_at: datetime) -> None:
        timer_id = self._timer_id(timer)
        command = commands.FireTimer(run_id=self.run_id, timer_id=timer_id, timer=timer)
        self._effects.append(NewEffect(timer_id, "timer", command, due_at))

    def stop_timer(self, timer: commands.Timer) -> None:
        """Its ledger row goes with this decision, or is not written at all."""
        timer_id = self._timer_id(timer)
        self._effects = [effect for effect in self._effects if effect.id != timer_id]
        self._settled.append(timer_id)

    def _timer_id(self, timer: commands.Timer) -> UUID:
        return derived_uuid(self.run_id, timer)

    def step(
        self,
        name: Literal["prepare", "install", "collect", "verify"],
        operation: Operation,
        ending: Ending | None = None,
    ) -> None:
        """Nothing else is waited for any more: the ledger rows of what is still open go."""
        self._settled += [pending.effect_id for pending in self.state.open]
        effect_id = self._next_effect_id()
        number = 0 if name in {"prepare", "install"} else self.state.step + 1
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
            fallbacks=self.state.run.fallbacks,
        )
        self.effect(effect_id, "provider", command)

    def tool(self, call: ToolCall, operation: CallTool) -> None:
        self._sandbox(self.call_started(call), operation)

    def call_started(self, call: ToolCall) -> UUID:
        """The id of the effect that the call is carried out as."""
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
        return effect_id

    def effect(self, effect_id: UUID, kind: EffectKind, command: Payload, due_at: datetime | None = None) -> None:
        self._effects.append(NewEffect(effect_id, kind, command, due_at))

    def message_completed(self, result: results.ProviderResult) -> None:
        assert result.message is not None
        if result.compaction is not None:
            self.emit(RunCompacted(effect_id=result.effect_id, compaction=result.compaction))
        self.emit(
            events.MessageCompleted(
                effect_id=result.effect_id,
                step=self.state.step,
                attempt=result.attempt,
                text=result.message.text,
                text_ref=result.text_ref,
                tool_calls=result.message.tool_calls,
                finish_reason=result.finish_reason,
                model=result.model,
                usage=result.usage,
                cost_usd=result.cost_usd,
            )
        )

    def tool_completed(self, call: ToolCall, result: results.SandboxResult) -> None:
        self.emit(
            events.ToolCallCompleted(
                tool_call_id=call.id,
                name=call.name,
                step=self.state.step,
                effect_id=result.effect_id,
                attempt=result.attempt,
                output=result.output,
                output_ref=result.output_ref,
                reason=result.reason,
                exit_code=result.exit_code,
                duration_seconds=result.duration_seconds,
                checkpoint=result.checkpoint,
                used=result.used,
            )
        )

    def tool_failed(
        self,
        call: ToolCall,
        code: str,
        error: str,
        result: results.SandboxResult | McpResult | None = None,
        approval_id: str | None = None,
    ) -> None:
        """`result` is given where somebody was asked, and did not carry the call out; `approval_id` where a person was,
        and refused it."""
        self.emit(
            events.ToolCallFailed(
                tool_call_id=call.id,
                name=call.name[:100],
                step=self.state.step,
                effect_id=None if result is None else result.effect_id,
                attempt=0 if result is None else result.attempt,
                code=code,
                error=error,
                retryable=result.retryable if isinstance(result, results.SandboxResult) else None,
                approval_id=approval_id,
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
        settled = tuple(dict.fromkeys(self._settled))
        facts, effects, orders = tuple(self._events), tuple(self._effects), tuple(self._orders)
        return Decision(self.state, facts, effects, settled, self.stops_effects, orders)

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
            image=self.state.run.image,
            dependencies=self.state.dependencies,
        )
        self.effect(effect_id, "sandbox", command)


def arguments_digest(call: ToolCall) -> str:
    """Of the arguments as they travel: of the text, or of the name of the artifact that holds it."""
    return f"sha256:{sha256((call.arguments_ref or call.arguments).encode()).hexdigest()}"
