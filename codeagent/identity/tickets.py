"""Stream tickets: a credential for one stream, for clients that cannot send a header, such as a browser's EventSource.

A ticket is random, stored as a digest, and used up by the statement that recognises it: on whichever edge it is shown
first, it is unknown to all of them from then on.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from pydantic import TypeAdapter

from codeagent.eventlog.database import Database
from codeagent.identity.principal import Principal

PREFIX = "cst_"
LIFETIME_SECONDS = 60
_FORM = re.compile(rf"{PREFIX}[0-9A-Za-z_-]{{43}}")
_PRINCIPAL = TypeAdapter(Principal)


@dataclass(frozen=True, slots=True)
class IssuedTicket:
    """Shown once, to the caller it was made for."""

    ticket: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class RedeemedTicket:
    """Whose ticket it was, and the one run it is good for; any of the tenant's streams where None."""

    principal: Principal
    run_id: str | None


class StreamTickets:
    """Raises `Unavailable` while the database is away."""

    def __init__(self, database: Database, *, lifetime_seconds: float = LIFETIME_SECONDS) -> None:
        self._database = database
        self._lifetime = lifetime_seconds

    async def issue(self, principal: Principal, run_id: str | None) -> IssuedTicket:
        ticket = f"{PREFIX}{secrets.token_urlsafe(32)}"
        [row] = await self._database.write(
            "SELECT issue_stream_ticket_v1($1, $2, $3, $4) AS expires_at",
            _digest(ticket),
            _PRINCIPAL.dump_json(principal).decode(),
            run_id,
            self._lifetime,
            tenant=principal.tenant_id,
        )
        return IssuedTicket(ticket, row["expires_at"])

    async def redeem(self, ticket: str) -> RedeemedTicket | None:
        """Uses a ticket up. None when it is unknown, used or too old."""
        if _FORM.fullmatch(ticket) is None:
            return None
        rows = await self._database.write("SELECT * FROM redeem_stream_ticket_v1($1)", _digest(ticket))
        if not rows:
            return None
        return RedeemedTicket(_PRINCIPAL.validate_json(rows[0]["principal"]), rows[0]["run_id"])


def is_ticket(credential: str) -> bool:
    return credential.startswith(PREFIX)


def _digest(ticket: str) -> bytes:
    return sha256(ticket.encode()).digest()
