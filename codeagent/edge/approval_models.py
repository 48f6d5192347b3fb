"""Approvals in the API's own words."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel

from codeagent.messages.values import ApprovalDecision
from codeagent.projections.approvals import Approval, ApprovalStatus


class ApprovalModel(BaseModel):
    """What a run asks a person, and what became of it.

    `arguments` is the JSON text as the model wrote it, whole; where it is too long it is empty, and the artifact
    `arguments_ref` holds it.
    """

    id: str
    run_id: str
    status: ApprovalStatus
    kind: Literal["tool_call"]
    tool: str
    tool_call_id: str
    arguments: str
    arguments_ref: str | None
    arguments_digest: str
    reason: str
    decisions: list[ApprovalDecision]
    requested_at: datetime
    expires_at: datetime
    decision: ApprovalDecision | None
    comment: str
    answered_by: str | None
    answered_at: datetime | None

    @classmethod
    def of(cls, run_id: str, approval: Approval, comment: str = "") -> Self:
        request = approval.request
        return cls(
            id=request.approval_id,
            run_id=run_id,
            status=approval.status,
            **request.model_dump(exclude={"approval_id"}),
            decision=approval.decision,
            comment=comment,
            answered_by=approval.answered_by,
            answered_at=approval.answered_at,
        )


class ApprovalPage(BaseModel):
    """A run's approvals, newest first. `next_cursor` continues the list; None at its end."""

    items: list[ApprovalModel]
    next_cursor: str | None
