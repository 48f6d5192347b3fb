"""`/v1/stream-tickets`: a credential for one stream, for clients that cannot send a header."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body
from fastapi.responses import Response

from codeagent.edge.answers import NO_STORE, answer
from codeagent.edge.context import Context, RunReader
from codeagent.edge.ticket_models import TicketBody, TicketModel

router = APIRouter(prefix="/v1", tags=["events"])


@router.post(
    "/stream-tickets",
    status_code=201,
    response_model=TicketModel,
    summary="Get a ticket for a stream",
    responses={404: {}},
)
async def issue_ticket(
    context: Context, caller: RunReader, body: Annotated[TicketBody | None, Body()] = None
) -> Response:
    """For a browser's EventSource (`?ticket=`) or WebSocket. It opens one stream or connection, within a minute, and
    what it opens ends when the credential that it was made with does."""
    run_id = None if body is None else body.run_id
    if run_id is not None:
        await context.views.get(caller.tenant_id, run_id)
    issued = await context.tickets.issue(caller, run_id)
    model = TicketModel(ticket=issued.ticket, run_id=run_id, expires_at=issued.expires_at)
    return answer(model, 201, cache=NO_STORE)
