"""Taking a command in: validated, recognised when repeated, and safe before it is answered 202."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from codeagent import clock
from codeagent.broker.topics import RUN_COMMANDS
from codeagent.edge.authors import CLIENT_ADDRESS
from codeagent.edge.context import EdgeContext
from codeagent.edge.models import AnswerBody, RunBody
from codeagent.edge.replayed import ReplayOrder, resolve_replay
from codeagent.edge.resolve import Named, Resolved, first_run, resolve
from codeagent.errors import NotFound, Rejected, Unavailable
from codeagent.eventlog.accept import Submission
from codeagent.eventlog.effects import OutboxRow
from codeagent.eventlog.facts import check_repeat
from codeagent.flags.features import RUNS_SUBMISSION
from codeagent.identity.principal import Principal
from codeagent.messages.catalog import encode_data
from codeagent.messages.commands import AnswerApproval, CancelRun, SubmitRun
from codeagent.messages.envelope import Envelope, to_headers
from codeagent.messages.ids import derived_uuid, typed_id
from codeagent.projections.view import RunView
from codeagent.quotas.gate import QuotaUsedUp
from codeagent.telemetry import metrics
from codeagent.telemetry.traces import current_traceparent

SWITCHED_OFF_SECONDS = 30
"""When a client may ask again that met a feature which an operator has switched off."""

_SUBMITTED = metrics.COMMAND_ACCEPT.labels("run.submit")


def idempotency_key(header: str | None) -> str:
    """The header's value, quoted as RFC 9651 has it or bare. Raises `Rejected`."""
    if header is None or not header.strip():
        raise Rejected("Idempotency-Key is required: a repeat is then done once.", code="idempotency_key_missing")
    key = header.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not 1 <= len(key) <= 255 or not key.isascii() or not key.isprintable():
        raise Rejected("Idempotency-Key must be 1 to 255 visible ASCII characters.", code="idempotency_key_malformed")
    return key


@dataclass(frozen=True, slots=True)
class AcceptedRun:
    """`command` is None where an earlier request under the same key had ordered the run, and nothing was sent."""

    run_id: str
    at: datetime
    command: SubmitRun | None


async def accept_run(
    context: EdgeContext, caller: Principal, body: RunBody | ReplayOrder, key: str, route: str = "POST /v1/runs"
) -> AcceptedRun:
    """Orders the run that `key` names on its route. Raises what the client is to be told."""
    started = time.perf_counter()
    if not context.features.enabled(RUNS_SUBMISSION, caller.tenant_id, caller.id):
        raise Unavailable(
            "New runs are not taken for the moment.",
            code="temporary_reduced_capacity",
            retry_after=SWITCHED_OFF_SECONDS,
        )
    run_id = typed_id("run", derived_uuid(caller.tenant_id, caller.id, route, key))
    fingerprint = body.fingerprint()
    try:
        resolved = await _resolved(context, caller, body, Named(run_id, fingerprint))
        command = resolved.command
        budgets, limit = context.budgets.gate, command.limits.max_cost_usd
        await budgets.admit(caller.tenant_id, caller.id, command.project_id, limit)
        await context.sandbox_quotas.gate.admit(caller.tenant_id)
    except (Rejected, QuotaUsedUp):
        if await _accepted_before(context, caller, run_id, fingerprint):
            metrics.IDEMPOTENCY_REPLAYS.inc()
            return AcceptedRun(run_id, clock.now(), None)
        raise
    flow = derived_uuid(resolved.first, "submit")
    envelope = _envelope(context, caller, command, derived_uuid(run_id, "submit"), flow)
    row = OutboxRow(envelope.id, RUN_COMMANDS, envelope, command)
    durable = context.policy.durable_accept
    accepted = await context.submissions.accept(
        Submission(run_id, caller.tenant_id, caller.id, command, row if durable else None, resolved.placement)
    )
    check_repeat(accepted.fingerprint, fingerprint)
    if accepted.accepted and not accepted.inserted:
        metrics.IDEMPOTENCY_REPLAYS.inc()
        return AcceptedRun(run_id, envelope.time, None)
    if durable:
        if not accepted.inserted:
            # Noted without an outbox row, before `durable_accept` was turned on, and never sent.
            await context.submissions.enqueue(row)
            context.submissions.confirm(run_id)
        context.hand_over(row)
    else:
        await context.publisher.send(RUN_COMMANDS, run_id, to_headers(envelope), encode_data(command))
        context.submissions.confirm(run_id)
    context.origins.note(envelope, CLIENT_ADDRESS.get())
    _SUBMITTED.observe(time.perf_counter() - started)
    return AcceptedRun(run_id, envelope.time, command)


async def _resolved(context: EdgeContext, caller: Principal, body: RunBody | ReplayOrder, named: Named) -> Resolved:
    if isinstance(body, ReplayOrder):
        return await resolve_replay(context, caller, body, named)
    return await resolve(context, caller, body, named)


async def _accepted_before(context: EdgeContext, caller: Principal, run_id: str, fingerprint: str) -> bool:
    """Whether what is refused now was accepted once: an agent may have been archived since, a model removed, a budget
    spent."""
    noted = await context.submissions.find(caller.tenant_id, run_id)
    if noted is not None:
        return noted.accepted and noted.fingerprint == fingerprint
    try:
        return (await context.views.get(caller.tenant_id, run_id)).fingerprint == fingerprint
    except NotFound:
        return False


async def accept_cancel(context: EdgeContext, caller: Principal, view: RunView, reason: str) -> None:
    """Orders a run to stop. Repeats are one order."""
    run_id = view.run_id
    command = CancelRun(run_id=run_id, reason=reason)
    envelope = _envelope(context, caller, command, derived_uuid(run_id, "cancel"), await _flow(context, view))
    await _order(context, command, envelope)


async def _flow(context: EdgeContext, view: RunView) -> UUID:
    """The correlation of what happens to a run: that of the command which the flow began with."""
    if view.correlation_id is not None:
        return view.correlation_id
    return derived_uuid(await first_run(context, view.tenant_id, view.run_id, view.session_id), "submit")


def answer_id(caller: Principal, run_id: str, approval_id: str, key: str) -> UUID:
    """Id of the command that an answer becomes: the same for a repeat under the same Idempotency-Key."""
    return derived_uuid(run_id, "answer", approval_id, caller.id, key)


async def accept_answer(
    context: EdgeContext, caller: Principal, view: RunView, approval_id: str, body: AnswerBody, key: str
) -> None:
    """Passes a person's answer on to the run. Whether it counts, the run decides: the first to arrive does."""
    run_id = view.run_id
    command = AnswerApproval(run_id=run_id, approval_id=approval_id, decision=body.decision, comment=body.comment)
    command_id = answer_id(caller, run_id, approval_id, key)
    await _order(context, command, _envelope(context, caller, command, command_id, await _flow(context, view)))


async def _order(context: EdgeContext, command: CancelRun | AnswerApproval, envelope: Envelope) -> None:
    """Sends a command to a run that is known. It is safe when this returns."""
    row = OutboxRow(envelope.id, RUN_COMMANDS, envelope, command)
    if context.policy.durable_accept:
        await context.submissions.enqueue(row)
        context.hand_over(row)
    else:
        await context.publisher.send(RUN_COMMANDS, envelope.key, to_headers(envelope), encode_data(command))
    context.origins.note(envelope, CLIENT_ADDRESS.get())


def _envelope(
    context: EdgeContext,
    caller: Principal,
    command: SubmitRun | CancelRun | AnswerApproval,
    command_id: UUID,
    flow: UUID,
) -> Envelope:
    """The envelope of a command to a run. Ids are derived: repeats have the same."""
    now = clock.now()
    return Envelope(
        id=command_id,
        name=command.NAME,
        version=command.VERSION,
        source=f"/tenants/{caller.tenant_id}/edge",
        time=now,
        tenant_id=caller.tenant_id,
        key=command.run_id,
        correlation_id=flow,
        actor_type=caller.type,
        actor_id=caller.id,
        traceparent=current_traceparent(),
        expires_at=now + timedelta(seconds=context.policy.submit_expiry_seconds)
        if isinstance(command, SubmitRun)
        else None,
    )
