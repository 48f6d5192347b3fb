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
from codeagent.messages.values import (
    AgentDefinition,
    ApprovalDecision,
    ApprovalPolicy,
    ArchiveSource,
    Artifact,
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
    state: RunState = field(default_factory=RunState)
    now: datetime = START
    events: list[Event] = field(default_factory=list)
    effects: list[NewEffect] = field(default_factory=list)

    def when(self, data: Payload, *, expires_at: datetime | None = None) -> Decision:
        envelope = Envelope(
            id=derived_uuid(RUN, data.NAME, str(len(self.events))),
            name=data.NAME,
            version=1,
            source="/test",
            time=self.now,
            tenant_id="ten_a",
            key=RUN,
            correlation_id=derived_uuid(RUN, "submit"),
            actor_id="usr_a",
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
            limits=self.limits,
            approvals=self.approvals,
            verification=self.verification,
            fingerprint="f",
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

    def sandbox(self, outcome: Outcome = Outcome.DONE, **fields: object) -> Decision:
        values: dict[str, object] = {"reason": "ok", "checkpoint": self.state.checkpoint, **fields}
        result = results.SandboxResult(effect_id=self.open_effect.id, run_id=RUN, attempt=1, outcome=outcome, **values)
        return self.when(result)

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

    def model_fails(self, reason: str, outcome: Outcome = Outcome.FAILED) -> Decision:
        result = results.ProviderResult(
            effect_id=self.open_effect.id, run_id=RUN, attempt=1, outcome=outcome, error_reason=reason, error="no"
        )
        return self.when(result)

    def collected(self) -> Decision:
        patch = Artifact(name="changes.patch", media_type="text/x-diff", size_bytes=3, digest=DIGEST)
        return self.sandbox(patch=patch)

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def names(decision: Decision) -> list[str]:
    return [event.NAME for event in decision.events]
