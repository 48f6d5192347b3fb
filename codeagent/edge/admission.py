"""Who follows a stream, by which credential, and for how long: checked when it opens and again while it is open."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.security import SecurityScopes
from starlette.datastructures import Address

from codeagent import clock
from codeagent.edge.challenges import unauthenticated
from codeagent.edge.context import EdgeContext, check_address, get_context, get_principal, refused
from codeagent.edge.traffic.exchange import exchange_of
from codeagent.errors import CodeAgentError, Unavailable
from codeagent.identity.principal import Principal
from codeagent.identity.scopes import Scope

STREAM_SCOPES = (Scope.RUNS_READ,)
EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Admission:
    """A caller who may follow streams: those of the one run that a ticket names, or all of the tenant's."""

    principal: Principal
    only_run: str | None
    closing: Callable[[], bool]
    still_valid: Callable[[Principal], bool]

    @property
    def tenant_id(self) -> str:
        return self.principal.tenant_id

    def check(self, run_id: str | None) -> None:
        """Raises `forbidden` where the ticket is for something else. None stands for the feed."""
        if self.only_run is not None and run_id != self.only_run:
            raise CodeAgentError("The ticket is for the stream of another run.", code="forbidden", status=403)

    def ended(self) -> str | None:
        """Why nothing more may be sent, as `stream.end` tells it: asked before each wait, so it costs no I/O."""
        if self.closing():
            return "reconnect"
        if self.seconds_left() <= 0:
            return "token_expired"
        return None if self.still_valid(self.principal) else "revoked"

    def seconds_left(self) -> float:
        expires = self.principal.expires_at
        return math.inf if expires is None else (expires - clock.now()).total_seconds()


def _ended(context: EdgeContext, detail: str) -> CodeAgentError:
    return unauthenticated(context.policy.public_url, shown=True, detail=detail)


def admit(context: EdgeContext, principal: Principal, client: Address | None, only_run: str | None = None) -> Admission:
    """Raises `unauthenticated` for a credential that is over already, `forbidden` for one that is used from elsewhere,
    `insufficient_scope` for one that may not read runs."""
    admission = Admission(principal, only_run, lambda: context.hub.closing, context.still_valid)
    if admission.ended() in {"token_expired", "revoked"}:
        raise _ended(context, "The credential has ended.")
    check_address(context, principal, client)
    missing = [scope for scope in STREAM_SCOPES if not principal.may(scope)]
    if missing:
        refused(context, principal, "insufficient_scope", client)
        raise CodeAgentError(f"The credential lacks {', '.join(missing)}.", code="insufficient_scope", status=403)
    return admission


async def admit_ticket(context: EdgeContext, ticket: str, client: Address | None) -> Admission:
    """Uses the ticket up."""
    redeemed = await context.tickets.redeem(ticket)
    if redeemed is None:
        raise _ended(context, "The ticket is unknown, used or too old: ask for another.")
    return admit(context, redeemed.principal, client, redeemed.run_id)


async def get_admission(
    request: Request,
    ticket: Annotated[
        str | None, Query(max_length=100, description="Instead of a header; event streams only.", examples=["cst_..."])
    ] = None,
) -> Admission:
    """The caller of a route that streams. A page of JSON takes no ticket: it would be gone for little."""
    context = await get_context(request)
    if ticket is None:
        principal = await get_principal(request, SecurityScopes([scope.value for scope in STREAM_SCOPES]))
        return admit(context, principal, request.client)
    if not streams(request):
        context.traffic.admit_anonymous(exchange_of(request))
        raise _ended(context, "A ticket opens an event stream and nothing else.")
    exchange = exchange_of(request)
    try:
        admission = await admit_ticket(context, ticket, request.client)
    except Unavailable:
        raise
    except CodeAgentError:
        context.traffic.admit_anonymous(exchange)
        raise
    context.traffic.admit(exchange, admission.principal)
    return admission


def streams(request: Request) -> bool:
    """Whether the client asks for an event stream."""
    return EVENT_STREAM in request.headers.get("accept", "")


StreamReader = Annotated[Admission, Depends(get_admission)]
