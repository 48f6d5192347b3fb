"""Verifying one stream, or one run with its effects, as far as one request may go."""

from __future__ import annotations

import asyncio

from codeagent.edge.audit_models import MOST_FINDINGS, FindingModel, VerificationModel
from codeagent.errors import NotFound
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.tenants import TenantLog
from codeagent.eventlog.verify import verify

MOST_EVENTS = 5_000
"""Events that one request checks, of the stream and of its effects each. `codeagent verify` knows no bound."""


async def verified(log: TenantLog, tenant_id: str, stream_id: str) -> VerificationModel:
    """Raises `NotFound` for a stream that the tenant does not have."""
    own = await _beginning(log, tenant_id, stream_id)
    if not own:
        raise NotFound("There is no such stream.")
    complete, story = len(own) <= MOST_EVENTS, own[:MOST_EVENTS]
    if stream_id.startswith("run-"):
        flow = await log.correlated(tenant_id, own[0].metadata["correlationid"], MOST_EVENTS + 1)
        effects = [event for event in flow[:MOST_EVENTS] if event.stream_id != stream_id]
        complete = complete and len(flow) <= MOST_EVENTS
        story = story + effects
    findings = await asyncio.to_thread(verify, story)
    return VerificationModel(
        stream_id=stream_id,
        verified=not findings,
        complete=complete,
        events=len(story),
        findings=[FindingModel.of(finding) for finding in findings[:MOST_FINDINGS]],
    )


async def _beginning(log: TenantLog, tenant_id: str, stream_id: str) -> list[StoredEvent]:
    found: list[StoredEvent] = []
    async for event in log.stream(tenant_id, stream_id):
        found.append(event)
        if len(found) > MOST_EVENTS:
            break
    return found
