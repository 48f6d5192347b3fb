"""What a model call has tried: what its facts and its bill are made of, and what a claim tells the next one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

from codeagent import clock
from codeagent.messages.calls import CallEnded, ModelAttempt, ModelSwitched
from codeagent.messages.commands import GenerateReply
from codeagent.messages.conversation import Data, Usage
from codeagent.messages.values import Outcome
from codeagent.providers.protocol import ModelReply, ProviderError
from codeagent.providers.retry import CallListener
from codeagent.telemetry import metrics
from codeagent.workers.call_documents import digest_of, reply_document
from codeagent.workers.effect import Work

NUMBERS_OF_A_CLAIM = 1_000
"""A worker that dies tells the next claim nothing: each has numbers of its own, more than it can make attempts."""


class Switch(Data):
    """From one model to another, as `<provider>/<name>`. `claim` is that in which it was made."""

    at: datetime
    claim: int
    from_model: str
    to_model: str
    reason: str


class _Memo(Data):
    """How a record travels to the next claim."""

    attempts: tuple[ModelAttempt, ...] = ()
    switches: tuple[Switch, ...] = ()
    request_digest: str = ""
    recorded: bool = False
    begun: int = 0
    """Attempts, those that were never heard of again included."""


class CallRecord(CallListener):
    """Keeps itself in the work's memo, so that it is there however the call ends. It goes on from what the claim before
    has left. `began` is told a number before each attempt: a higher one than for any before, in whatever claim."""

    def __init__(self, work: Work, began: Callable[[int], None] = lambda _: None) -> None:
        self._work = work
        self._began = began
        self._started = 0
        self.cached = False
        kept = work.memo or work.claim.memo
        memo = _Memo() if kept is None else _Memo.model_validate_json(kept)
        self.attempts, self.switches = memo.attempts, memo.switches
        self.request_digest, self.recorded = memo.request_digest, memo.recorded
        self._begun = memo.begun
        self._before = (work.claim.attempt - 1) * NUMBERS_OF_A_CLAIM + self._begun

    @property
    def has_asked(self) -> bool:
        """Whether anybody was asked in this claim."""
        return self._started > 0

    @property
    def usage(self) -> Usage:
        return sum((attempt.usage for attempt in self.attempts), Usage())

    @property
    def cost_usd(self) -> Decimal | None:
        """Of all attempts whose price is known; None where there is none, unless nobody had to be asked."""
        costs = [attempt.cost_usd for attempt in self.attempts if attempt.cost_usd is not None]
        return sum(costs, Decimal(0)) if costs or self.cached else None

    @property
    def model(self) -> str | None:
        """The one asked last, as `<provider>/<name>`."""
        return f"{self.attempts[-1].provider}/{self.attempts[-1].model}" if self.attempts else None

    def asks(self, document: bytes, *, recorded: bool) -> None:
        """To be said of each request, before it is made; `recorded` once it is an artifact."""
        self.request_digest, self.recorded = digest_of(document), recorded
        self._keep()

    def waits(self, provider: str, *, for_leave: bool) -> None:
        self._work.waits = for_leave

    def recalled(self) -> None:
        """The reply is there already. It is told as another attempt's, and is none that is counted."""
        self.cached = True
        self._begin()

    def attempt_started(self, provider: str, model: str, number: int) -> None:
        self._begin()

    def _begin(self) -> None:
        self._started += 1
        self._keep()
        self._began(self._before + self._started)

    def attempt_failed(self, provider: str, model: str, number: int, error: ProviderError, seconds: float) -> None:
        self._add(provider, model, seconds, error, error.usage or Usage(), error.reason)

    def attempt_succeeded(self, provider: str, model: str, number: int, reply: ModelReply, seconds: float) -> None:
        self._add(provider, model, seconds, reply, reply.usage, None)

    def switched(self, from_model: str, to_model: str, reason: str) -> None:
        claim = self._work.claim.attempt
        made = Switch(at=clock.now(), claim=claim, from_model=from_model, to_model=to_model, reason=reason)
        self.switches = (*self.switches, made)
        self._keep()

    def facts(self, run_id: str) -> tuple[tuple[ModelSwitched, datetime], ...]:
        """The switches, as the log has them."""
        return tuple(
            (
                ModelSwitched(
                    effect_id=self._work.claim.effect_id,
                    run_id=run_id,
                    attempt=switch.claim,
                    from_model=switch.from_model,
                    to_model=switch.to_model,
                    reason=switch.reason,
                ),
                switch.at,
            )
            for switch in self.switches
        )

    def ended(
        self, outcome: Outcome, label: str | None = None, reply: ModelReply | None = None, reason: str | None = None
    ) -> CallEnded:
        """How the call ended: with the `reply` of the model `label`, or for a `reason`."""
        command, claim = self._work.message.data, self._work.claim
        assert isinstance(command, GenerateReply)
        return CallEnded(
            effect_id=claim.effect_id,
            run_id=command.run_id,
            attempt=claim.attempt,
            outcome=outcome,
            model=label or self.model or command.model,
            response_model="" if reply is None else reply.response_model,
            request_digest=self.request_digest,
            reply_digest="" if reply is None else digest_of(reply_document(reply)),
            finish_reason=None if reply is None else reply.finish_reason,
            error_reason=reason,
            usage=self.usage,
            cost_usd=self.cost_usd,
            tries=max(len(self.attempts), 1),
            duration_seconds=self._work.elapsed_seconds,
            attempts=self.attempts,
            first_token_seconds=None if reply is None else reply.first_token_seconds,
            recorded=True if self.recorded else None,
            cached=True if self.cached else None,
        )

    def _add(
        self,
        provider: str,
        model: str,
        seconds: float,
        end: ModelReply | ProviderError,
        usage: Usage,
        reason: str | None,
    ) -> None:
        metrics.GENAI_DURATION.labels(provider, model, reason or "").observe(seconds)
        metrics.GENAI_TOKENS.labels(provider, model, "input").inc(usage.input_tokens)
        metrics.GENAI_TOKENS.labels(provider, model, "output").inc(usage.output_tokens)
        metrics.GENAI_COST.labels(provider, model).inc(float(end.cost_usd or 0))
        made = ModelAttempt(
            provider=provider,
            model=model,
            reason=reason,
            usage=usage,
            cost_usd=end.cost_usd,
            seconds=round(seconds, 6),
            price=end.price,
            credential_id=end.credential_id,
            estimated=True if isinstance(end, ProviderError) and end.estimated else None,
        )
        self.attempts = (*self.attempts, made)
        self._keep()

    def _keep(self) -> None:
        memo = _Memo(
            attempts=self.attempts,
            switches=self.switches,
            request_digest=self.request_digest,
            recorded=self.recorded,
            begun=self._begun + self._started,
        )
        self._work.memo = memo.model_dump_json().encode()
