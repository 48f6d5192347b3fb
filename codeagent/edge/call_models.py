"""Answers about model calls."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

from codeagent.messages.calls import CallEnded, ModelAttempt
from codeagent.messages.conversation import FinishReason, Usage
from codeagent.projections.calls import RunCall

CallOutcome = Literal["done", "failed", "canceled", "worker_lost"]


class TokensModel(BaseModel):
    """`input_tokens` includes what was read from or written to a vendor's cache."""

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int

    @classmethod
    def of(cls, usage: Usage) -> TokensModel:
        return cls.model_validate(usage.model_dump())


class PriceModel(BaseModel):
    """By which figures a request was counted: `digest` is of the figures, `version` the day or the list that has
    them."""

    source: Literal["operator", "list", "free"]
    version: str
    digest: str


class CallAttemptModel(BaseModel):
    """One request to a provider."""

    provider: str
    model: str = Field(description="The vendor's name of it.")
    reason: str | None = Field(description="Why it brought no reply; null for the one that did.")
    usage: TokensModel
    estimated: bool = Field(description="Whether nobody counted all of `usage`, since the answer broke off.")
    cost_usd: str | None = Field(description="Null where no price is known.")
    price: PriceModel | None
    seconds: float

    @classmethod
    def of(cls, attempt: ModelAttempt) -> CallAttemptModel:
        return cls(
            provider=attempt.provider,
            model=attempt.model,
            reason=attempt.reason,
            usage=TokensModel.of(attempt.usage),
            estimated=bool(attempt.estimated),
            cost_usd=_amount(attempt.cost_usd),
            price=None if attempt.price is None else PriceModel.model_validate(attempt.price.model_dump()),
            seconds=attempt.seconds,
        )


class SwitchModel(BaseModel):
    """The call went on with another model."""

    at: datetime
    from_model: str
    to_model: str
    reason: str


class CallEndModel(BaseModel):
    """How a call ended, with all that its attempts have used. Digests are `sha256:` and 64 hexadecimal digits, and null
    where there is nothing that they could be of."""

    ended_at: datetime
    outcome: CallOutcome
    claim: int = Field(description="How many workers have had it until then.")
    model: str = Field(description="The one that has replied, or was asked last, as `<provider>/<name>`.")
    response_model: str | None = Field(description="What the vendor says has replied.")
    finish_reason: FinishReason | None
    error_reason: str | None
    request_digest: str | None = Field(description="Of what was asked at last: model, messages, tools.")
    reply_digest: str | None
    recorded: bool = Field(description="Whether there is an artifact of each digest, as JSON.")
    cached: bool = Field(description="Whether the reply is one that the model had given to the same request before.")
    usage: TokensModel
    cost_usd: str | None = Field(description="Of all attempts whose price is known; null where there is none.")
    first_token_seconds: float | None = Field(description="How long the vendor that replied took to begin.")
    duration_seconds: float = Field(description="Of the last claim, waits between attempts included.")

    @classmethod
    def of(cls, ended_at: datetime, ended: CallEnded) -> CallEndModel:
        return cls(
            ended_at=ended_at,
            outcome=ended.outcome.value,
            claim=ended.attempt,
            model=ended.model,
            response_model=ended.response_model or None,
            finish_reason=ended.finish_reason,
            error_reason=ended.error_reason,
            request_digest=ended.request_digest or None,
            reply_digest=ended.reply_digest or None,
            recorded=bool(ended.recorded),
            cached=bool(ended.cached),
            usage=TokensModel.of(ended.usage),
            cost_usd=_amount(ended.cost_usd),
            first_token_seconds=ended.first_token_seconds,
            duration_seconds=ended.duration_seconds,
        )


class CallModel(BaseModel):
    """One model call. `end` is null while it is at work; what it has asked meanwhile is told at its end."""

    effect_id: UUID
    step: int
    started_at: datetime
    attempts: list[CallAttemptModel]
    switches: list[SwitchModel]
    end: CallEndModel | None

    @classmethod
    def of(cls, call: RunCall) -> CallModel:
        attempts = () if call.ended is None else call.ended[1].attempts or ()
        return cls(
            effect_id=call.effect_id,
            step=call.step,
            started_at=call.started_at,
            attempts=[CallAttemptModel.of(attempt) for attempt in attempts],
            switches=[
                SwitchModel(at=at, from_model=told.from_model, to_model=told.to_model, reason=told.reason)
                for at, told in call.switches
            ],
            end=None if call.ended is None else CallEndModel.of(*call.ended),
        )


class CallPage(BaseModel):
    items: list[CallModel]
    next_cursor: str | None


def _amount(cost: Decimal | None) -> str | None:
    return None if cost is None else f"{cost:f}"
