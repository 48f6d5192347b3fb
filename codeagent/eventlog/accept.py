"""What the edge notes of a submission before it answers 202: the run is known at once, a reused key is seen."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import orjson

from codeagent.errors import CodeAgentError, Conflict, Exhausted, Unavailable
from codeagent.eventlog.batching import Batcher
from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import OutboxRow, envelope_json
from codeagent.eventlog.sealing import open_request, outbox_place, sealed_request, sealed_value
from codeagent.eventlog.tenants import TenantLog
from codeagent.messages.commands import SubmitRun
from codeagent.messages.events import RunSubmitted
from codeagent.messages.ids import run_stream
from codeagent.subjects.key import SubjectKey
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

CONFIRM_SECONDS = 0.05
"""How long confirmations are gathered before they are written."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a run belongs. `after` is the session's run that it goes on from; None for the session's first."""

    project_id: str | None
    session_id: str | None = None
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """`request` is the command, which `principal` has given. `command`, where given, is its row of the outbox, written
    in the same commit: accepted even if the broker forgets everything. `placement` is set for a run of a project or a
    session."""

    run_id: str
    tenant_id: str
    principal: str
    request: SubmitRun
    command: OutboxRow | None = None
    placement: Placement | None = None

    @property
    def fingerprint(self) -> str:
        return self.request.fingerprint


@dataclass(frozen=True, slots=True)
class Accepted:
    """`fingerprint` is that of the first submission under this run id; `accepted` whether its command is safe."""

    fingerprint: str
    accepted: bool
    inserted: bool


@dataclass(frozen=True, slots=True)
class StoredSubmission:
    run_id: str
    tenant_id: str
    fingerprint: str
    request: dict[str, Any]
    accepted: bool
    created_at: datetime


class SubmissionLedger:
    """Batched over concurrent requests: one statement serves all that arrive while the last one runs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._log = TenantLog(database)
        self._accepts: Batcher[Submission, Accepted | None] = Batcher(self._accept_many, most=100)
        self._confirmed: set[str] = set()
        self._writing: asyncio.Task[None] | None = None

    async def accept(self, submission: Submission) -> Accepted:
        """Raises `Conflict` when another edge is taking the same run this instant and its row is not visible yet, and
        for a run of a project or session what keeps it from being accepted: `Conflict` or `Exhausted`."""
        take = self._accepts if submission.placement is None else self._accept_placed
        accepted = await take(submission) or await take(submission)
        accepted = accepted or await self._forgotten(submission)
        if accepted is None:
            raise Conflict("the same submission is being accepted elsewhere", code="idempotency_in_progress")
        return replace(accepted, accepted=True) if submission.run_id in self._confirmed else accepted

    async def _forgotten(self, submission: Submission) -> Accepted | None:
        """A run whose submission has had its time: the log has kept the fingerprint."""
        event = await self.submitted(submission.tenant_id, submission.run_id)
        return None if event is None else Accepted(event.fingerprint, accepted=True, inserted=False)

    async def submitted(self, tenant_id: str, run_id: str) -> RunSubmitted | None:
        """The fact that a run was submitted, where a worker has recorded it."""
        for stored in await self._log.read_stream(tenant_id, run_stream(run_id), limit=2):
            event = stored.decode()
            if isinstance(event, RunSubmitted):
                return event
        return None

    async def earlier(self, tenant_id: str, run_id: str) -> SubmitRun | None:
        """The command that an earlier request has led to, where there was one."""
        stored = await self.find(tenant_id, run_id)
        if stored is not None:
            return SubmitRun.model_validate(stored.request)
        event = await self.submitted(tenant_id, run_id)
        return None if event is None else SubmitRun(**{name: getattr(event, name) for name in SubmitRun.model_fields})

    async def _accept_many(self, submissions: Sequence[Submission]) -> Sequence[Accepted | None]:
        commands = [item.command for item in submissions]
        keys = [await self._database.subjects.of(item.tenant_id, item.principal) for item in submissions]
        rows = await self._database.write(
            "SELECT * FROM accept_runs_v1($1, $2, $3, $4, $5, $6, $7, $8)",
            [item.run_id for item in submissions],
            [item.tenant_id for item in submissions],
            [item.fingerprint for item in submissions],
            [sealed_request(key, item.request) for key, item in zip(keys, submissions, strict=True)],
            [None if command is None else command.id for command in commands],
            [None if command is None else command.topic for command in commands],
            [None if command is None else envelope_json(command.envelope) for command in commands],
            [_value(key, row) for key, row in zip(keys, commands, strict=True)],
        )
        found = {row["run_id"]: Accepted(row["fingerprint"], row["accepted"], row["inserted"]) for row in rows}
        answers: list[Accepted | None] = []
        for item in submissions:
            accepted = found.get(item.run_id)
            answers.append(accepted)
            if accepted is not None:
                found[item.run_id] = Accepted(accepted.fingerprint, accepted.accepted, inserted=False)
        return answers

    async def _accept_placed(self, item: Submission) -> Accepted | None:
        """A run of a project or session: alone, since it may have to wait for its turn there."""
        command, placement = item.command, item.placement
        assert placement is not None
        key = await self._database.subjects.of(item.tenant_id, item.principal)
        rows = await self._database.write(
            "SELECT * FROM accept_placed_run_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            item.run_id,
            item.tenant_id,
            item.fingerprint,
            sealed_request(key, item.request),
            None if command is None else command.id,
            None if command is None else command.topic,
            None if command is None else envelope_json(command.envelope),
            _value(key, command),
            placement.project_id,
            placement.session_id,
            placement.after,
        )
        if not rows:
            return None
        if rows[0]["refusal"] is not None:
            raise _refused(rows[0]["refusal"], rows[0]["retry_after"])
        return Accepted(rows[0]["fingerprint"], rows[0]["accepted"], rows[0]["inserted"])

    def confirm(self, run_id: str) -> None:
        """The broker has the command. Written behind: until then, and if that is lost, a repeat of the request only
        sends the command again, which whoever handles it recognises."""
        self._confirmed.add(run_id)
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_confirmed())

    async def _write_confirmed(self) -> None:
        try:
            while self._confirmed:
                await asyncio.sleep(CONFIRM_SECONDS)
                run_ids = list(self._confirmed)
                await self._mark_accepted(run_ids)
                self._confirmed.difference_update(run_ids)
        finally:
            self._writing = None

    async def _mark_accepted(self, run_ids: Sequence[str]) -> None:
        try:
            await self._database.write("SELECT confirm_runs_v1($1)", run_ids)
        except Unavailable as error:
            log.warning("submissions.not_confirmed", count=len(run_ids), error=error.detail)

    async def close(self) -> None:
        """Writes what is left."""
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)

    async def enqueue(self, row: OutboxRow) -> None:
        """Writes a command to the outbox, once: it is safe when this returns."""
        key = await self._database.subjects.of(row.envelope.tenant_id, row.envelope.actor_id)
        await self._database.write(
            """INSERT INTO outbox (id, topic, key, tenant_id, headers, value, due_at)
               VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp() + interval '2 seconds') ON CONFLICT (id) DO NOTHING""",
            row.id,
            row.topic,
            row.envelope.key,
            row.envelope.tenant_id,
            envelope_json(row.envelope),
            _value(key, row),
            tenant=row.envelope.tenant_id,
        )

    async def forget(self, older_than: timedelta, most: int) -> int:
        """Removes at most `most` submissions that nobody needs any more; returns how many.

        Those are old, and either in the log or were never acknowledged to anyone. While its command waits in the
        outbox a run is not in the log: one transaction writes there and removes it here.
        """
        rows = await self._database.write(
            """DELETE FROM submissions WHERE run_id IN (
                   SELECT s.run_id FROM submissions s
                   WHERE s.created_at < clock_timestamp() - $1::interval
                         AND (NOT s.accepted OR is_submitted_v1(s.run_id))
                   ORDER BY s.created_at LIMIT $2 FOR UPDATE SKIP LOCKED)
               RETURNING run_id""",
            older_than,
            most,
        )
        return len(rows)

    async def find(self, tenant_id: str, run_id: str) -> StoredSubmission | None:
        """Raises `Erased` where it was erased."""
        rows = await self._database.fetch(
            "SELECT * FROM submissions WHERE run_id = $1 AND tenant_id = $2", run_id, tenant_id, tenant=tenant_id
        )
        if not rows:
            return None
        row = rows[0]
        return StoredSubmission(
            row["run_id"],
            row["tenant_id"],
            row["fingerprint"],
            await open_request(self._database.subjects, run_id, orjson.loads(row["request"])),
            row["accepted"],
            row["created_at"],
        )


def _value(key: SubjectKey | None, row: OutboxRow | None) -> bytes | None:
    return None if row is None else sealed_value(key, row.data, outbox_place(row.id))


_REFUSALS = {
    "session_closed": "The session is closed.",
    "session_busy": "A run of the session is at work.",
    "project_archived": "The project is archived.",
    "concurrency_limit": "As many runs of the project are at work as may be at once.",
    "quota_exceeded": "The project has had its runs for today (UTC).",
}


def _refused(code: str, retry_after: int) -> CodeAgentError:
    """Why no run is taken: a state to be changed first (409), or a quota (429)."""
    if retry_after:
        return Exhausted(_REFUSALS[code], code=code, retry_after=retry_after)
    return Conflict(_REFUSALS[code], code=code)
