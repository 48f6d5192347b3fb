"""What model calls may spend, held back before they are made: many at once never pass a limit together.

A call reserves the most that it can come to, of its run's own limit and of every budget that refuses and concerns it.
Once it has been made, what it has come to takes the place of that, until the projection of usage counts the call and
removes its reservation in the same transaction. So at every moment each call counts once, and never for too little.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from codeagent.budgets.budget import Unit
from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import Claim

KEPT = timedelta(hours=1)
"""How long a reservation counts of which nothing more is heard: longer than any call takes."""
SETTLED_KEPT = timedelta(days=1)
"""How long what a call has come to counts before usage does, which lags by a second as a rule."""
MOST_REMEMBERED = 100_000


@dataclass(frozen=True, slots=True)
class Spender:
    """Whose a call is. `max_cost_usd` is the limit of its run."""

    tenant_id: str
    run_id: str
    principal_id: str
    project_id: str | None = None
    max_cost_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class WorstCase:
    """The most that a call can come to: `input_usd` for what the model is told, `output_usd` for each token of its
    reply; both None where no price is known. Its reply may have fewer tokens, and is worthless below the least."""

    input_tokens: int
    output_tokens: int
    least_output_tokens: int
    input_usd: Decimal | None
    output_usd: Decimal | None

    def after(self, tokens: int, usd: Decimal | None) -> WorstCase:
        """The same on top of what earlier attempts of the call have come to."""
        if not tokens and not usd:
            return self
        told = self.input_tokens + tokens
        if self.input_usd is None and usd is None:
            return replace(self, input_tokens=told)
        input_usd = (self.input_usd or Decimal(0)) + (usd or Decimal(0))
        return replace(self, input_tokens=told, input_usd=input_usd, output_usd=self.output_usd or Decimal(0))


@dataclass(frozen=True, slots=True)
class NoRoom:
    """What is left of the limit that has the least room. `budget_id` None: it is the run's own."""

    budget_id: str | None
    unit: Unit
    limit: Decimal
    left: Decimal


class CallReservations:
    """`database` sees all tenants. That a tenant has no budget that refuses is remembered for `remembered_seconds`, and
    calls of its runs without a limit then cost no query."""

    def __init__(self, database: Database, *, remembered_seconds: float = 5.0) -> None:
        self._database = database
        self._remembered = remembered_seconds
        self._unbounded: dict[str, float] = {}
        self._held: set[UUID] = set()
        """Tokens of claims that have reserved something."""

    async def reserve(self, claim: Claim, spender: Spender, worst: WorstCase) -> int | NoRoom:
        """The tokens that the reply may have. Once for each effect, however often it is claimed: the newest claim's
        reservation takes the place of the one before."""
        now = time.monotonic()
        if spender.max_cost_usd is None and self._unbounded.get(spender.tenant_id, 0.0) > now:
            return worst.output_tokens
        [row] = await self._database.write(
            f"SELECT * FROM reserve_call_v1({', '.join(f'${number}' for number in range(1, 14))})",  # noqa: S608
            claim.effect_id,
            claim.token,
            spender.tenant_id,
            spender.run_id,
            spender.principal_id,
            spender.project_id,
            spender.max_cost_usd,
            worst.input_tokens,
            worst.output_tokens,
            worst.least_output_tokens,
            worst.input_usd,
            worst.output_usd,
            KEPT,
        )
        if row["verdict"] == "refused":
            return NoRoom(row["budget_id"], Unit(row["unit"]), row["amount"], row["room"])
        if row["verdict"] == "unbounded":
            if len(self._unbounded) >= MOST_REMEMBERED:
                self._unbounded.clear()
            self._unbounded[spender.tenant_id] = now + self._remembered
        else:
            if len(self._held) >= MOST_REMEMBERED:
                self._held.clear()  # what is not settled counts as it was reserved, until usage counts the call
            self._held.add(claim.token)
        return int(row["output_tokens"])

    async def settle(self, claim: Claim, tokens: int, usd: Decimal) -> None:
        """What the call has come to counts from now on. Changes nothing where a newer claim has reserved since."""
        if claim.token not in self._held:
            return
        self._held.discard(claim.token)
        await self._database.write(
            """UPDATE call_reservations SET tokens = $3, usd = $4, expires_at = clock_timestamp() + $5
               WHERE effect_id = $1 AND token = $2""",
            claim.effect_id,
            claim.token,
            tokens,
            usd,
            SETTLED_KEPT,
        )


async def forget_call_reservations(database: Database, most: int) -> int:
    """Removes at most `most` that count no longer; returns how many."""
    rows = await database.write(
        """DELETE FROM call_reservations WHERE effect_id IN (
               SELECT effect_id FROM call_reservations WHERE expires_at < clock_timestamp() LIMIT $1
               FOR UPDATE SKIP LOCKED)
           RETURNING effect_id""",
        most,
    )
    return len(rows)
