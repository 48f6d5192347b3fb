"""`/v1/providers`, `/v1/models`: what runs can be given to think with. Nothing of how we get at it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Self

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel

from codeagent.edge.answers import answer
from codeagent.edge.context import Context, ProviderReader
from codeagent.edge.problems import errors_of
from codeagent.provider_registry.tables import Health, health
from codeagent.providers.offers import ModelOffer, ProviderOffer
from codeagent.providers.pricing import TokenPrices
from codeagent.providers.registry import ProviderKind

router = APIRouter(prefix="/v1", tags=["providers"], responses=errors_of(401, 403, 503))


TOLD_WITHIN = timedelta(seconds=30)


class HealthModel(BaseModel):
    """As provider workers have told a moment ago: in how many of them calls go through (`closed`), one is tried
    (`half_open`), or none is made (`open`). What it is known from are calls of runs and, where there are none, a look
    whether the server answers."""

    closed: int
    half_open: int
    open: int
    last_answer_at: datetime | None
    last_failure_at: datetime | None
    last_failure_reason: str

    @classmethod
    def of(cls, found: Health) -> Self:
        return cls(**{name: getattr(found, name) for name in cls.model_fields})


class ProviderModel(BaseModel):
    """A provider of models. `host` is null for a vendor's own service; `key_configured` does not say that the key, of
    the settings or stored, is accepted; `health` is null where no worker has told anything for half a minute. `models`
    are what runs may name; `openai/*` stands for any name of the vendor's."""

    name: str
    kind: ProviderKind
    host: str | None
    key_configured: bool
    models: list[str]
    health: HealthModel | None

    @classmethod
    def of(cls, offer: ProviderOffer, found: Health | None, has_stored_key: bool) -> Self:
        return cls(
            name=offer.name,
            kind=offer.kind,
            host=offer.host,
            key_configured=offer.key_configured or has_stored_key,
            models=list(offer.models),
            health=None if found is None else HealthModel.of(found),
        )


class ProviderPage(BaseModel):
    """All of them: there is no other page."""

    items: list[ProviderModel]
    next_cursor: None = None


class PricesModel(BaseModel):
    """US dollars for a million tokens, for prompts of ordinary length."""

    input_usd: str
    output_usd: str
    cache_read_usd: str
    cache_write_usd: str

    @classmethod
    def of(cls, prices: TokenPrices) -> Self:
        read, write = prices.cache_usd()
        usd = (prices.input_usd, prices.output_usd, read, write)
        return cls(**dict(zip(cls.model_fields, (f"{value.normalize():f}" for value in usd), strict=True)))


class OfferedModel(BaseModel):
    """A model. Null is what is not known here: it does not mean that a model has no limit or costs nothing."""

    id: str
    provider: str
    is_default: bool
    context_window: int | None
    prices: PricesModel | None

    @classmethod
    def of(cls, offer: ModelOffer, default: str) -> Self:
        prices = None if offer.prices is None else PricesModel.of(offer.prices)
        return cls(
            id=offer.id,
            provider=offer.provider,
            is_default=offer.id == default,
            context_window=offer.context_window,
            prices=prices,
        )


class OfferedModelPage(BaseModel):
    """All of them: there is no other page."""

    items: list[OfferedModel]
    next_cursor: None = None


@router.get("/providers", response_model=ProviderPage, summary="List the model providers")
async def list_providers(context: Context, caller: ProviderReader) -> Response:
    """Those that the installation is configured with, without their keys and addresses, and how calls of them go."""
    found = await health(context.database, TOLD_WITHIN)
    stored = await context.credentials.stored_for()
    items = [
        ProviderModel.of(offer, found.get(offer.name), offer.name in stored) for offer in context.offers.providers()
    ]
    return _answer(ProviderPage(items=items))


@router.get("/models", response_model=OfferedModelPage, summary="List the models that runs may name")
async def list_models(context: Context, caller: ProviderReader) -> Response:
    """With what is known of their context windows, in tokens, and prices. The default is what a run gets that names
    no model, and whose agent does not."""
    default = context.policy.default_model
    page = OfferedModelPage(items=[OfferedModel.of(offer, default) for offer in await context.offers.models()])
    return _answer(page)


def _answer(page: BaseModel) -> Response:
    return answer(page)
