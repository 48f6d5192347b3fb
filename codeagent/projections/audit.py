"""The audit: who did what to which thing, kept from the log. What a fact says beyond that stays in the fact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from codeagent.eventlog.database import Connection
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.unreadable import readable
from codeagent.messages import values as messages
from codeagent.messages.audit_events import AccessRefused
from codeagent.messages.calls import CallEnded
from codeagent.messages.events import (
    CancelRequested,
    ExecEnded,
    InputExpired,
    InputReceived,
    InputRequired,
    RunCanceled,
    RunCompleted,
    RunFailed,
    RunRejected,
    RunSubmitted,
)
from codeagent.messages.identity_events import LoginFailed, RefreshReuseDetected
from codeagent.messages.mcp_calls import McpCallEnded
from codeagent.projections.projection import Kept, Projection

RUN_KIND = "run"
APPROVALS = frozenset(event.NAME for event in (InputRequired, InputReceived, InputExpired))
RUN_ACTIONS = APPROVALS | {
    event.NAME for event in (RunSubmitted, CancelRequested, RunCompleted, RunFailed, RunCanceled, RunRejected)
}
"""What of a run somebody answers for, what it was allowed included. Its steps are the run's own story."""
EXEC_KIND = "exec"
_OF_RUNS = frozenset({EXEC_KIND, "call", "mcp"})
"""Operations in sandboxes, calls of models and of tools on servers, by their run: who answers for a run answers for
them."""
_ENDS = (ExecEnded, CallEnded, McpCallEnded)
_TOLD_BY_DATA = frozenset({InputReceived.NAME, *(event.NAME for event in _ENDS)})
_UNDONE = frozenset({messages.Outcome.FAILED, messages.Outcome.WORKER_LOST})


class Outcome(StrEnum):
    """How an act ended: done, tried in vain, or not allowed."""

    SUCCESS = "success"
    FAILURE = "failure"
    DENIED = "denied"


OUTCOMES: dict[str, Outcome] = {
    LoginFailed.NAME: Outcome.FAILURE,
    RunFailed.NAME: Outcome.FAILURE,
    RunRejected.NAME: Outcome.DENIED,
    InputExpired.NAME: Outcome.FAILURE,
    RefreshReuseDetected.NAME: Outcome.DENIED,
    AccessRefused.NAME: Outcome.DENIED,
}
"""Of facts that are no success."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One line of the audit."""

    event_id: UUID
    tenant_id: str
    occurred_at: datetime
    actor_type: str
    actor_id: str
    action: str
    resource_kind: str
    resource_id: str
    outcome: Outcome


def audit_row(event: StoredEvent) -> AuditRow | None:
    """What the audit keeps of an event; None for what is no act of anybody. A stream's name tells its resource."""
    kind, _, identifier = event.stream_id.partition("-")
    if kind == RUN_KIND and event.type not in RUN_ACTIONS:
        return None
    meta = event.metadata
    if kind in _OF_RUNS:
        identifier = meta.get("runid", identifier)
    return AuditRow(
        event_id=event.id,
        tenant_id=event.tenant_id,
        occurred_at=event.occurred_at,
        actor_type=meta.get("authtype", "system"),
        actor_id=meta.get("authid", "system"),
        action=event.type,
        resource_kind=kind,
        resource_id=identifier,
        outcome=_outcome(event),
    )


def _outcome(event: StoredEvent) -> Outcome:
    """What was carried out has been done, whatever it returned; that of which nothing came has not. What somebody has
    rejected was not allowed."""
    told = readable(event, AuditProjector.NAME) if event.type in _TOLD_BY_DATA and event.data else None
    if isinstance(told, _ENDS):
        return Outcome.FAILURE if told.outcome in _UNDONE else Outcome.SUCCESS
    if isinstance(told, InputReceived) and told.decision is messages.ApprovalDecision.REJECT:
        return Outcome.DENIED
    return OUTCOMES.get(event.type, Outcome.SUCCESS)


class AuditProjector(Projection):
    """Keeps the `audit_events` table. Facts of control-plane resources that are yet to come are in it by themselves."""

    NAME = "audit"
    LOCK = 0x61756469
    KEEPS = (Kept("audit_events", ("event_id",), sample="t.event_id = ANY (s.events)"),)

    async def take(self, connection: Connection, page: Sequence[StoredEvent]) -> None:
        rows = [row for row in map(audit_row, page) if row is not None]
        await connection.executemany(
            """INSERT INTO audit_events (event_id, tenant_id, occurred_at, actor_type, actor_id, action, resource_kind,
                                         resource_id, outcome)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (event_id) DO NOTHING""",
            [
                (
                    row.event_id,
                    row.tenant_id,
                    row.occurred_at,
                    row.actor_type,
                    row.actor_id,
                    row.action,
                    row.resource_kind,
                    row.resource_id,
                    row.outcome.value,
                )
                for row in rows
            ],
        )
