"""Ending what is at work of somebody: each of their runs is canceled like any other, by nobody in particular."""

from __future__ import annotations

from uuid import UUID

from codeagent import clock
from codeagent.eventlog.accept import SubmissionLedger
from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import OutboxRow
from codeagent.messages.commands import CancelRun
from codeagent.messages.envelope import Envelope
from codeagent.messages.ids import derived_uuid
from codeagent.privacy import tables
from codeagent.subjects.key import key_id_of


def stop_order(topic: str, tenant_id: str, run_id: str, order_id: UUID, why: str) -> OutboxRow:
    """What is written twice under one id is one order. `why` names the right that it is for."""
    command = CancelRun(run_id=run_id)
    envelope = Envelope(
        id=order_id,
        name=command.NAME,
        version=command.VERSION,
        source=f"/tenants/{tenant_id}/{why}",
        time=clock.now(),
        tenant_id=tenant_id,
        key=run_id,
        correlation_id=derived_uuid(run_id, "submit"),
        actor_type="system",
        actor_id=why,
    )
    return OutboxRow(envelope.id, topic, envelope, command)


class RestrictedRuns:
    """`database` sees all tenants. `topic` takes commands to runs."""

    def __init__(self, database: Database, *, topic: str) -> None:
        self._database = database
        self._ledger = SubmissionLedger(database)
        self._topic = topic
        self._ordered: set[str] = set()

    async def stop(self) -> int:
        """Orders the end of all that is at work of those who were restricted within a day; how many runs that were.
        What was on its way as the restriction began is found at a later look."""
        users = await self._database.fetch(
            """SELECT tenant_id, id FROM users
               WHERE restricted_at > clock_timestamp() - interval '1 day' AND erased_at IS NULL"""
        )
        at_work: set[str] = set()
        for user in users:
            tenant_id = user["tenant_id"]
            runs = await tables.runs_at_work(self._database, tenant_id, key_id_of(tenant_id, user["id"]))
            for run_id in set(runs) - self._ordered:  # what has been ordered is safe, and would be handled once more
                order = stop_order(self._topic, tenant_id, run_id, derived_uuid(run_id, "restricted"), "restriction")
                await self._ledger.enqueue(order)
            at_work.update(runs)
        self._ordered = at_work
        return len(at_work)
