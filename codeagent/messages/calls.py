"""What is told of one model call: on its own stream which models were asked and how it ended; on its run's what a call
cost that brought nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import Field

from codeagent.messages.conversation import Data, FinishReason, Usage
from codeagent.messages.envelope import Event
from codeagent.messages.personal import CONTENT_DIGEST
from codeagent.messages.prices import PriceTold
from codeagent.messages.values import Outcome, absent


class ModelAttempt(Data):
    """One request to a provider. `model` is the vendor's name of it; `reason` says why there is no reply, and is None
    where there is one; `usage` is what the attempt has used, `estimated` is set where nobody counted all of it;
    `cost_usd` is None where no price is known, and `price` the one that it was counted by, which was in force when the
    attempt began. `credential_id` names the stored key that was sent; None is that of the settings."""

    provider: str
    model: str
    reason: str | None = None
    usage: Usage = Usage()
    cost_usd: Decimal | None = None
    seconds: float
    price: PriceTold | None = Field(default=None, exclude_if=absent)
    credential_id: str | None = Field(default=None, exclude_if=absent)
    estimated: bool | None = Field(default=None, exclude_if=absent)


class ModelSwitched(Event):
    """The call went on with another model, because of `reason`. `attempt` is the claim in which it did."""

    NAME: ClassVar[str] = "provider.call.switched"

    effect_id: UUID
    run_id: str
    attempt: int
    from_model: str
    to_model: str
    reason: str


class CallEnded(Event):
    """The recorded end of one model call: what it asked, what it used, what it cost. `model` has replied, or was the
    last one asked; `usage` and `cost_usd` are of all `attempts` together, those of earlier claims included.
    `first_token_seconds` is how long the vendor that replied took to begin; `recorded` is set where the digests are
    those of artifacts, `cached` where the reply is one that `model` had given to the same request before: it was not
    asked."""

    NAME: ClassVar[str] = "provider.call.ended"

    effect_id: UUID
    run_id: str
    attempt: int
    outcome: Outcome
    model: str
    response_model: str = ""
    request_digest: Annotated[str, CONTENT_DIGEST] = ""
    reply_digest: Annotated[str, CONTENT_DIGEST] = ""
    finish_reason: FinishReason | None = None
    error_reason: str | None = None
    usage: Usage
    cost_usd: Decimal | None = None
    tries: int = 1
    duration_seconds: float
    attempts: tuple[ModelAttempt, ...] | None = Field(default=None, exclude_if=absent)
    first_token_seconds: float | None = Field(default=None, exclude_if=absent)
    recorded: bool | None = Field(default=None, exclude_if=absent)
    cached: bool | None = Field(default=None, exclude_if=absent)


class MessageFailed(Event):
    """A model call that brought no message and used something all the same."""

    NAME: ClassVar[str] = "message.failed"

    effect_id: UUID
    step: int
    attempt: int
    model: str
    reason: str
    usage: Usage
    cost_usd: Decimal | None = None
