"""Given facts, when a message arrives, then these facts and effects follow: the agent without any I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from codeagent.agent.decide import decide
from codeagent.agent.draft import Decision, NewEffect
from codeagent.agent.state import RunState
from codeagent.messages import commands, results
from codeagent.messages.conversation import AssistantMessage, FinishReason, ToolCall, Usage
from codeagent.messages.envelope import Envelope, Event, Message, Payload
from codeagent.messages.ids import derived_uuid, typed_id
from codeagent.messages.subagents import Parent
from codeagent.messages.values import (
    AgentDefinition,
    ApprovalDecision,
    ApprovalPolicy,
    ArchiveSource,
    Artifact,
    CallTool,
    Dependencies,
    Outcome,
    RunLimits,
)
from codeagent.messages.verification import Verification

RUN = typed_id("run", UUID(int=7))
START = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64


def call(name: str, call_id: str = "c1", **arguments: object) -> ToolCall:
    return ToolCall(id=call_id, name=name, arguments=json.dumps(arguments))


@dataclass
class Scenario:
    """A run at work. Each `when` returns the decision and moves the run on."""

    limits: RunLimits = field(default_factory=RunLimits)
    definition: AgentDefinition | None = None
    approvals: ApprovalPolicy | None = None
    verification: Verification | None = None
    image: str | None = None
    dependencies: Dependencies | None = None
    fallbacks: tuple[str, ...] | None = None
    parent: Parent | None = None
    state: RunState = field(default_factory=RunState)
    now: datetime = START
    events: list[Event] = field(default_factory=list)
    effects: list[NewEffect] = field(default_factory=list)

    def when(self, data: Payload, *, expires_at: datetime | None = None, actor: str = "usr_a") -> Decision:
        envelope = Envelope(
            id=derived_uuid(RUN, data.NAME, str(len(self.events))),
            name=data.NAME,
            version=1,
            source="/test",
            time=self.now,
            tenant_id="ten_a",
            key=RUN,
            correlation_id=derived_uuid(RUN, "submit"),
            actor_id=actor,
            expires_at=expires_at,
        )
        decision = decide(self.state, Message(envelope, data), self.now)
        self.state = decision.state
        self.events += decision.events
        self.effects += decision.effects
        return decision

    def submit(self, *, expires_at: datetime | None = None) -> Decision:
        return self.when(self.command(), expires_at=expires_at)

    def command(self) -> commands.SubmitRun:
        return commands.SubmitRun(
            run_id=RUN,
            task="fix it",
            source=ArchiveSource(digest=DIGEST),
            agent="coder",
            definition=self.definition,
            model="test/model",
            fallbacks=self.fallbacks,
            limits=self.limits,
            approvals=self.approvals,
            verification=self.verification,
            image=self.image,
            fingerprint="f",
            dependencies=self.dependencies,
            parent=self.parent,
        )

    def cancel(self) -> Decision:
        return self.when(commands.CancelRun(run_id=RUN, reason="enough"))

    def answer(
        self, decision: ApprovalDecision = ApprovalDecision.ALLOW_ONCE, comment: str = "", to: str | None = None
    ) -> Decision:
        """A person's answer to what the run asks, or to the approval `to`."""
        asked = self.state.approval
        approval_id = to or (asked.approval_id if asked is not None else "apr_none")
        command = commands.AnswerApproval(run_id=RUN, approval_id=approval_id, decision=decision, comment=comment)
        return self.when(command)

    def timer(self, timer: str) -> Decision:
        return self.when(commands.FireTimer(run_id=RUN, timer_id=derived_uuid(RUN, timer), timer=timer))

    @property
    def open_effect(self) -> NewEffect:
        return next(effect for effect in reversed(self.effects) if effect.kind != "timer")

    def sandbox(self, outcome: Outcome = Outcome.DONE, *, call_id: str | None = None, **fields: object) -> Decision:
        """What came of the newest effect, or of one of several calls."""
        effect_id = self.open_effect.id if call_id is None else self.effect_of(call_id).id
        values: dict[str, object] = {"reason": "ok", "checkpoint": self.state.checkpoint, **fields}
        result = results.SandboxResult(effect_id=effect_id, run_id=RUN, attempt=1, outcome=outcome, **values)
        return self.when(result)

    def effect_of(self, call_id: str) -> NewEffect:
        return next(effect for effect in reversed(self.effects) if _call_id(effect) == call_id)

    def prepared(self) -> Decision:
        self.submit()
        return self.sandbox(base=DIGEST, checkpoint="")

    def model(
        self,
        *calls: ToolCall,
        text: str = "",
        finish: FinishReason = FinishReason.STOP,
        usage: Usage | None = None,
        **fields: object,
    ) -> Decision:
        result = results.ProviderResult(
            effect_id=self.open_effect.id,
            run_id=RUN,
            attempt=1,
            outcome=Outcome.DONE,
            message=AssistantMessage(text=text, tool_calls=calls),
            finish_reason=finish,
            model="test/model",
            usage=usage or Usage(input_tokens=10, output_tokens=5),
            **fields,
        )
        return self.when(result)

    def model_fails(self, reason: str, outcome: Outcome = Outcome.FAILED, **fields: object) -> Decision:
        result = results.ProviderResult(
            effect_id=self.open_effect.id,
            run_id=RUN,
            attempt=1,
            outcome=outcome,
            error_reason=reason,
            error="no",
            **fields,
        )
        return self.when(result)

    def collected(self) -> Decision:
        patch = Artifact(name="changes.patch", media_type="text/x-diff", size_bytes=3, digest=DIGEST)
        return self.sandbox(patch=patch)

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def names(decision: Decision) -> list[str]:
    return [event.NAME for event in decision.events]


def _call_id(effect: NewEffect) -> str | None:
    operation = effect.command.operation if isinstance(effect.command, commands.ExecuteOperation) else None
    return operation.call.id if isinstance(operation, CallTool) else None
