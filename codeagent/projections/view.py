"""A run as people see it: folded from its stream, event by event."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from codeagent.eventlog.stored import StoredEvent
from codeagent.messages import events
from codeagent.messages.calls import MessageFailed
from codeagent.messages.commands import SubmitRun
from codeagent.messages.conversation import Usage
from codeagent.messages.values import (
    BASE_CHECKPOINT,
    AgentDefinition,
    ApprovalPolicy,
    Artifact,
    Assignment,
    Files,
    Replays,
    RunLimits,
    RunStatus,
    Source,
)
from codeagent.messages.verification import Verification
from codeagent.projections.approvals import Approvals


@dataclass(slots=True)
class RunView:
    """The visible state of one run. `version` is the stream's, 0 before the first event."""

    run_id: str
    tenant_id: str
    version: int = 0
    status: RunStatus = RunStatus.SUBMITTED
    status_reason: str = ""
    message: str = ""
    task: str = ""
    source: Source | None = None
    agent: str = ""
    agent_version: int = 1
    assignment: Assignment | None = None
    model: str = ""
    fallbacks: tuple[str, ...] = ()
    limits: RunLimits | None = None
    approval_policy: ApprovalPolicy | None = None
    verification: Verification | None = None
    verified: events.RunVerified | None = None
    """What the judging of its patch has brought."""
    approvals: Approvals = field(default_factory=Approvals)
    steps: int = 0
    usage: Usage = field(default_factory=Usage)
    cost_usd: Decimal = Decimal(0)
    artifacts: list[Artifact] = field(default_factory=list)
    cancel_requested_at: datetime | None = None
    reason_at: int | None = None
    """The version of the fact that says why it was canceled, where one does. As comments on approvals the reason is its
    author's: a fold, which is kept for the run's owner, has neither."""
    deadline_at: datetime | None = None
    """None before the run has begun, and while it waits for a person: no deadline runs then."""
    fingerprint: str = ""
    project_id: str | None = None
    session_id: str | None = None
    replays: Replays | None = None
    parent_run_id: str | None = None
    correlation_id: UUID | None = None
    """Of the flow that the run belongs to; None before its first event."""
    key_id: str | None = None
    """Of the key that its task is sealed with, where it is."""
    erased: bool = False
    image: str | None = None
    """None for the usual one."""
    files: Files | None = None
    """As they are at the newest checkpoint; None while there are none."""
    created_at: datetime | None = None
    updated_at: datetime | None = None

    def ordered(self, command: SubmitRun, at: datetime) -> None:
        """Shows what was asked for, while no event of the run is there to tell."""
        self.task, self.source = command.task, command.source
        self.agent, self.agent_version = command.agent, command.agent_version
        self.assignment = _assignment(command.definition)
        self.model, self.limits, self.approval_policy = command.model, command.limits, command.approvals
        self.verification, self.fingerprint = command.verification, command.fingerprint
        self.project_id, self.session_id, self.image = command.project_id, command.session_id, command.image
        self.fallbacks, self.replays = command.fallbacks or (), command.replays
        self.parent_run_id = _parent(command)
        self.created_at = self.created_at or at
        self.updated_at = self.updated_at or at

    def apply(self, stored: StoredEvent) -> None:
        """Takes the next event of the run's stream."""
        self.version = stored.version
        self.updated_at = stored.occurred_at
        if self.created_at is None:
            self.created_at = stored.occurred_at
        if self.correlation_id is None and (flow := stored.metadata.get("correlationid")) is not None:
            self.correlation_id = UUID(flow)
        event = stored.decode()
        if isinstance(event, events.RunSubmitted):
            self.key_id, self.erased = stored.key_id, stored.erased
        self._take(event, stored.occurred_at)
        self.approvals.take(event, stored)

    def _take(self, event: object, at: datetime) -> None:
        self.status = status_after(event) or self.status
        match event:
            case events.RunSubmitted():
                self._submitted(event)
            case events.MessageCompleted() | MessageFailed():
                self.steps += isinstance(event, events.MessageCompleted)
                self.usage = self.usage + event.usage
                self.cost_usd += event.cost_usd or Decimal(0)
            case events.StepCompleted():
                self._prepared(event)
            case events.ToolCallCompleted() if self.files is not None:
                self.files = self.files.model_copy(update={"checkpoint": event.checkpoint})
            case events.ArtifactCreated() | events.RunVerified():
                self._brought(event)
            case events.InputRequired() | events.RunResumed():
                self._waits(event)
            case events.CancelRequested():
                self.cancel_requested_at, self.reason_at = at, self.version if event.reason else None
            case events.RunEnded():
                self.status_reason = event.status_reason
                # Of one that was canceled, facts of before say the reason again.
                self.message = "" if isinstance(event, events.RunCanceled) else event.message
            case _:
                pass

    def _submitted(self, event: events.RunSubmitted) -> None:
        self.task, self.source = event.task, event.source
        self.agent, self.agent_version = event.agent, event.agent_version
        self.assignment = _assignment(event.definition)
        self.model, self.limits, self.approval_policy = event.model, event.limits, event.approvals
        self.verification, self.fingerprint, self.deadline_at = event.verification, event.fingerprint, event.deadline_at
        self.project_id, self.session_id, self.image = event.project_id, event.session_id, event.image
        self.files, self.fallbacks, self.replays = event.continues, event.fallbacks or (), event.replays
        self.parent_run_id = _parent(event)

    def _brought(self, event: events.ArtifactCreated | events.RunVerified) -> None:
        if isinstance(event, events.RunVerified):
            self.verified = event
        else:
            self.artifacts.append(event.artifact)

    def _waits(self, event: events.InputRequired | events.RunResumed) -> None:
        if isinstance(event, events.InputRequired):
            self.status_reason = "approval_required"
            # A child's deadline does not stand still: its parent waits for it.
            self.deadline_at = None if self.parent_run_id is None else self.deadline_at
        else:
            self.status_reason = ""
            self.deadline_at = event.deadline_at

    def _prepared(self, event: events.StepCompleted) -> None:
        if event.base is not None:
            self.files = Files(base=event.base, checkpoint=event.checkpoint or BASE_CHECKPOINT)


def status_after(event: object) -> RunStatus | None:
    """What an event makes of the status of its run; None where it stays as it was."""
    match event:
        case events.RunStarted() | events.RunResumed():
            return RunStatus.WORKING
        case events.InputRequired():
            return RunStatus.INPUT_REQUIRED
        case events.RunEnded():
            return RunStatus(event.NAME.removeprefix("run."))
        case _:
            return None


def _parent(said: SubmitRun | events.RunSubmitted) -> str | None:
    return None if said.parent is None else said.parent.run_id


def _assignment(definition: AgentDefinition | None) -> Assignment | None:
    return None if definition is None else definition.assignment
