"""What a model call may cost: held back before it is made, and settled once it has been."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Protocol

from codeagent.budgets.reservations import CallReservations, NoRoom, Spender, WorstCase
from codeagent.errors import Unavailable
from codeagent.eventlog.effects import Claim
from codeagent.messages.conversation import Usage
from codeagent.messages.events import RunSubmitted
from codeagent.providers.protocol import ModelRequest, Price, ProviderError
from codeagent.providers.usage import estimate_input
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger
from codeagent.workers.effect import Work
from codeagent.workers.input_tokens import InputTokens

log = get_logger(__name__)

LEAST_OUTPUT_TOKENS = 1_024
"""A reply is cut down to what is left of a budget, but not further than this: below it, a model is of no use."""


class Spent(Protocol):
    """What a call has come to so far, failed attempts included."""

    @property
    def usage(self) -> Usage: ...

    @property
    def cost_usd(self) -> Decimal | None: ...


class Spending:
    """Holds calls to the limits of their runs and to the budgets of their tenants. Without `reservations` it knows of
    neither."""

    def __init__(self, reservations: CallReservations | None = None) -> None:
        self._reservations = reservations
        self._input_tokens = InputTokens()

    async def reserve(
        self, work: Work, run: RunSubmitted | None, label: str, price: Price | None, spent: Spent, request: ModelRequest
    ) -> ModelRequest:
        """To be awaited before every attempt; what those before it have come to stays reserved. The request, for a
        shorter reply where no more fits. Raises `ProviderError` where nothing of use fits: `budget_exceeded` for the
        run's own limit, `budget_exhausted` for a budget; and `price_unknown` where a run with a limit in dollars asks
        a model of which nobody knows the price."""
        if self._reservations is None:
            return request
        assert run is not None, "a run asks for nothing before it was submitted"
        limit = run.limits.max_cost_usd
        if price is None and limit is not None:
            detail = "The run has a limit in USD, and the price of its model is not known."
            raise ProviderError(detail, reason="price_unknown", retryable=False)
        tenant_id = work.message.envelope.tenant_id
        spender = Spender(tenant_id, run.run_id, run.principal, run.project_id, limit)
        # What breaks off may be settled at an estimate, which is no more than was held back for it.
        told = max(self._input_tokens.most(run.run_id, label, request), estimate_input(request))
        worst = worst_case(request, told, price).after(_tokens(spent.usage), spent.cost_usd)
        granted = await self._reservations.reserve(work.claim, spender, worst)
        if isinstance(granted, NoRoom):
            by_run = granted.budget_id is None
            metrics.CALLS_REFUSED.labels("run" if by_run else "budget").inc()
            reason = "budget_exceeded" if by_run else "budget_exhausted"
            raise ProviderError(_refusal(granted), reason=reason, retryable=False)
        return replace(request, max_output_tokens=granted)

    def learn(self, run_id: str, label: str, request: ModelRequest, usage: Usage) -> None:
        """What the vendor has counted for a request to `<provider>/<name>`, which the run's next one begins with."""
        if self._reservations is not None:
            self._input_tokens.learn(run_id, label, request, usage.input_tokens)

    async def settle(self, claim: Claim, spent: Spent) -> None:
        """To be awaited before the outcome is recorded. Where the database is away the whole reserve counts on until
        usage does: nobody spends too much by that."""
        if self._reservations is None:
            return
        try:
            await self._reservations.settle(claim, _tokens(spent.usage), spent.cost_usd or Decimal(0))
        except Unavailable as error:
            log.warning("spending.unsettled", effect_id=str(claim.effect_id), error=error.detail)


def worst_case(request: ModelRequest, told: int, price: Price | None) -> WorstCase:
    """The most that a call of so many tokens of input can come to, whatever is read from a cache or written to one."""
    wanted = request.max_output_tokens
    least = min(LEAST_OUTPUT_TOKENS, wanted)
    if price is None:
        return WorstCase(told, wanted, least, None, None)
    kinds = (
        Usage(input_tokens=told),
        Usage(input_tokens=told, cache_read_tokens=told),
        Usage(input_tokens=told, cache_write_tokens=told),
    )
    input_usd = max(price.cost(kind) for kind in kinds)
    whole = price.cost(Usage(input_tokens=told, output_tokens=wanted))
    return WorstCase(told, wanted, least, input_usd, (whole - price.cost(kinds[0])) / wanted)


def _tokens(usage: Usage) -> int:
    return usage.input_tokens + usage.output_tokens


def _refusal(room: NoRoom) -> str:
    whose = "The run" if room.budget_id is None else f"Budget {room.budget_id}"
    return f"{whose} has {room.left:f} of {room.limit:f} {room.unit} left, and the next model call might spend more."
