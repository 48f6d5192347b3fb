"""What each run came to, for those who ask about its agent's version: a row a run, kept from the log by cursor.

A page is folded onto the rows as they were, which commit with the place in the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from codeagent.eventlog.database import Connection
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.unreadable import readable
from codeagent.messages import events
from codeagent.messages.envelope import Event
from codeagent.messages.values import ApprovalDecision
from codeagent.projections import tally
from codeagent.projections.outcomes import RunOutcome, outcome_of
from codeagent.projections.projection import Kept, Projection

_REFUSED = "approval_rejected"
"""Code of a tool call that a person has refused: nothing has failed."""
_ENDED_WELL = frozenset({"ok", "exit"})
"""Reasons of tools that ran to their end, whatever they found."""
_FOLDED = (tally.COUNTED - {events.ExecEnded.NAME}) | frozenset(
    event.NAME
    for event in (
        events.MessageCompleted,
        events.ToolCallCompleted,
        events.ToolCallFailed,
        events.InputRequired,
        events.InputReceived,
        events.InputExpired,
        events.RunResumed,
    )
)


@dataclass(slots=True)
class AgentRun:
    """One row; columns have the same names. `rule` and `canary` are those of its assignment. `working_ms` is from the
    submission to the end without `waited_ms`, the time that people took for their answers, and None for a run at work.
    Calls, tokens and cost are those of all calls, failed ones too; a bill that comes late is in them."""

    run_id: str
    tenant_id: str
    agent: str
    agent_version: int
    rule: str | None
    canary: int | None
    submitted_at: datetime
    outcome: str = RunOutcome.OPEN.value
    waiting_since: datetime | None = None
    waited_ms: int = 0
    working_ms: int | None = None
    steps: int = 0
    calls: int = 0
    cached_calls: int = 0
    unpriced_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    tool_calls: int = 0
    tool_failures: int = 0
    approvals_asked: int = 0
    approvals_rejected: int = 0
    approvals_expired: int = 0

    def take(self, event: Event, at: datetime) -> None:
        """One more event of the run, or of a call of it."""
        for _, used in tally.tallies_of(event, ""):
            self._count(used)
        match event:
            case events.MessageCompleted():
                self.steps += 1
            case events.ToolCallCompleted():
                self._called(failed=event.reason not in _ENDED_WELL)
            case events.ToolCallFailed():
                self._called(failed=event.code != _REFUSED)
            case events.InputRequired():
                self.approvals_asked += 1
                self.waiting_since = at
            case events.InputReceived():
                self.approvals_rejected += event.decision is ApprovalDecision.REJECT
            case events.InputExpired():
                self.approvals_expired += 1
            case events.RunResumed():
                self._waited(at)
            case events.RunEnded():
                self._waited(at)
                self.outcome = outcome_of(event).value
                self.working_ms = max(_ms(at - self.submitted_at) - self.waited_ms, 0)
            case _:
                pass

    def _count(self, used: tally.Tally) -> None:
        self.calls += used.calls
        self.cached_calls += used.cached_calls
        self.unpriced_calls += used.unpriced_calls
        self.input_tokens += used.input_tokens
        self.output_tokens += used.output_tokens
        self.cost_usd += used.cost_usd

    def _called(self, *, failed: bool) -> None:
        self.tool_calls += 1
        self.tool_failures += failed

    def _waited(self, at: datetime) -> None:
        if self.waiting_since is not None:
            self.waited_ms += _ms(at - self.waiting_since)
            self.waiting_since = None


def _ms(time: timedelta) -> int:
    return round(time / timedelta(milliseconds=1))


_COLUMNS = tuple(column.name for column in fields(AgentRun))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM agent_runs WHERE run_id = ANY ($1)"  # noqa: S608  constants
_UPSERT = (
    f"INSERT INTO agent_runs ({', '.join(_COLUMNS)}) "  # noqa: S608  constants
    f"VALUES ({', '.join(f'${place}' for place in range(1, len(_COLUMNS) + 1))}) "
    f"ON CONFLICT (run_id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS[7:])}"
)


def _values(run: AgentRun) -> tuple[object, ...]:
    return tuple(getattr(run, name) for name in _COLUMNS)


class AgentRunsProjector(Projection):
    """Keeps `agent_runs`."""

    NAME = "agent_runs"
    LOCK = 0x6167656E7473
    KEEPS = (Kept("agent_runs", ("run_id",)),)

    async def take(self, connection: Connection, page: Sequence[StoredEvent]) -> None:
        read = [(stored, event) for stored in page if (event := _read(stored)) is not None]
        if not read:
            return
        runs = await self._known(connection, {stored.metadata["runid"] for stored, _ in read})
        for stored, event in read:
            run_id = stored.metadata["runid"]
            if isinstance(event, events.RunSubmitted):
                runs[run_id] = _begun(stored, event)
            elif run_id in runs:
                runs[run_id].take(event, stored.occurred_at)
        await connection.executemany(_UPSERT, [_values(run) for run in runs.values()])

    async def _known(self, connection: Connection, run_ids: set[str]) -> dict[str, AgentRun]:
        """A run whose submission the log cannot show is nobody's, and has no row."""
        rows: Sequence[Any] = await connection.fetch(_SELECT, sorted(run_ids))
        return {row["run_id"]: AgentRun(*row.values()) for row in rows}


def _begun(stored: StoredEvent, event: events.RunSubmitted) -> AgentRun:
    assignment = None if event.definition is None else event.definition.assignment
    rule, canary = (None, None) if assignment is None else (assignment.rule, assignment.canary)
    return AgentRun(event.run_id, stored.tenant_id, event.agent, event.agent_version, rule, canary, stored.occurred_at)


def _read(stored: StoredEvent) -> Event | None:
    """The event, if it changes something and can be read."""
    event = readable(stored, AgentRunsProjector.NAME) if stored.type in _FOLDED else None
    return event if "runid" in stored.metadata else None
