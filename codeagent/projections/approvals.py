"""A run's approvals as people see them: what was asked, what became of it, who answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from codeagent.eventlog.stored import StoredEvent
from codeagent.messages import events
from codeagent.messages.values import ApprovalDecision, ApprovalRequest


class ApprovalStatus(StrEnum):
    """`canceled`: the run has ended without an answer."""

    PENDING = "pending"
    ALLOWED = "allowed"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELED = "canceled"


@dataclass(slots=True)
class Approval:
    """One request, and its answer. `command_id` is the id of the `run.answer` that was the first to arrive, and
    `comment_at` the version of the fact that has a comment with it: that is its author's, goes with them, and is read
    when it is shown."""

    request: ApprovalRequest
    status: ApprovalStatus = ApprovalStatus.PENDING
    decision: ApprovalDecision | None = None
    comment_at: int | None = None
    answered_by: str | None = None
    answered_at: datetime | None = None
    command_id: str | None = None

    @property
    def pending(self) -> bool:
        return self.status is ApprovalStatus.PENDING


@dataclass(slots=True)
class Approvals:
    """In the order in which they were asked for. At most one is pending."""

    _by_id: dict[str, Approval] = field(default_factory=dict)

    def find(self, approval_id: str) -> Approval | None:
        return self._by_id.get(approval_id)

    def newest_first(self) -> Sequence[Approval]:
        return [*reversed(self._by_id.values())]

    @property
    def pending(self) -> Sequence[Approval]:
        return [approval for approval in self._by_id.values() if approval.pending]

    def take(self, event: object, stored: StoredEvent) -> None:
        """Takes the next event of the run's stream; those that concern no approval change nothing."""
        match event:
            case events.InputRequired():
                self._by_id[event.request.approval_id] = Approval(event.request)
            case events.InputReceived():
                self._answered(event, stored)
            case events.InputExpired():
                self._settle(ApprovalStatus.EXPIRED)
            case events.RunEnded():
                self._settle(ApprovalStatus.CANCELED)
            case _:
                pass

    def _answered(self, event: events.InputReceived, stored: StoredEvent) -> None:
        approval = self._by_id.get(event.approval_id)
        if approval is None:
            return
        rejected = event.decision is ApprovalDecision.REJECT
        approval.status = ApprovalStatus.REJECTED if rejected else ApprovalStatus.ALLOWED
        approval.decision, approval.comment_at = event.decision, stored.version if event.comment else None
        approval.answered_by, approval.answered_at = event.principal, stored.occurred_at
        approval.command_id = stored.metadata.get("causationid")

    def _settle(self, status: ApprovalStatus) -> None:
        for approval in self.pending:
            approval.status = status
