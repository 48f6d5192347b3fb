"""Which providers exist, which models they offer, and the provider behind a model string `<provider>/<vendor model>`.

Vendors' SDKs are imported when a worker first resolves one of their models; the edge asks only for names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, field_validator, model_validator

from codeagent.errors import InvalidInput
from codeagent.providers.keyring import Keyring
from codeagent.providers.keys import KeySource, NothingStored, StoredKeys, none_given, placeholder
from codeagent.providers.limits import CallLimits
from codeagent.providers.pricing import DatedPrices, Pricing, check_days
from codeagent.providers.protocol import Provider
from codeagent.providers.repair.provider import RepairProvider

BUILTIN = "builtin"
ProviderKind = Literal["openai", "anthropic", "google", "builtin"]
_VENDOR_MODEL = re.compile(r"[!-~]{1,200}")
_MAX_KEY_BYTES = 16_384


class ProviderSettings(BaseModel):
    """One configured provider. Without `base_url` it is the vendor's own service, which needs a key: here, or stored in
    the installation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    kind: ProviderKind
    base_url: str | None = None
    """Where a compatible server listens, e.g. `http://127.0.0.1:11434/v1`."""
    api: Literal["responses", "chat"] | None = None
    """Which of OpenAI's APIs to speak; by default `responses` to the vendor's own service, `chat` to other servers."""
    api_key: SecretStr | None = None
    """The key, or a reference to it that the composition root resolves: `file:/...`, `env:NAME`, `vault:path#field`."""
    api_key_file: Path | None = None
    """Read again for every call, so that a mounted secret can be replaced while workers run."""
    models: tuple[str, ...] = ()
    """The vendor's model names that may be asked for; empty means any."""
    context_window: int | None = Field(default=None, ge=1024)
    """Tokens, for models the bundled list does not know."""
    prices: dict[str, DatedPrices] = Field(default_factory=dict)
    """By vendor model name, one price or several with days `from` which on they hold; they go before the bundled
    list."""
    output_limit_field: Literal["max_completion_tokens", "max_tokens"] | None = None
    """How an OpenAI-compatible server calls the limit; by default the older name for servers of one's own."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Of each provider worker, as the two below. A call that would have to wait for longer than it may fails as
    `rate_limited`."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Input and output together: estimated before a call, corrected after it."""
    concurrency: int | None = Field(default=None, ge=1)
    """Calls at once. Others wait, a thousand in each worker beside what it is doing. None: half of the worker's slots
    where there are several providers."""
    connect_timeout_seconds: float = Field(default=10.0, gt=0)
    first_token_timeout_seconds: float = Field(default=180.0, gt=0)
    silence_timeout_seconds: float = Field(default=120.0, gt=0)

    @field_validator("base_url")
    @classmethod
    def _plain_http_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
            raise ValueError("must be an http or https address without credentials or query")
        return value.rstrip("/")

    @field_validator("models")
    @classmethod
    def _model_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if bad := [name for name in value if not _VENDOR_MODEL.fullmatch(name)]:
            raise ValueError(f"not a model name: {bad[0]!r}")
        return value

    @field_validator("prices")
    @classmethod
    def _one_price_a_day(cls, value: dict[str, DatedPrices]) -> dict[str, DatedPrices]:
        return {model: check_days(prices) for model, prices in value.items()}

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.kind == BUILTIN) != (self.name == BUILTIN):
            raise ValueError("the name 'builtin' belongs to the built-in models")
        if self.kind != "openai" and self.api is not None:
            raise ValueError("api is a setting of the kind 'openai'")
        if self.api_key is not None and self.api_key_file is not None:
            raise ValueError("give api_key or api_key_file, not both")
        return self

    @property
    def asking_digest(self) -> str:
        """Of what may change an answer to the same request: which service is asked, and in which words. Keys, prices
        and limits do not."""
        words = self.model_dump_json(include={"kind", "base_url", "api", "output_limit_field"})
        return sha256(words.encode()).hexdigest()

    def limits(self) -> CallLimits:
        return CallLimits(self.requests_per_minute, self.tokens_per_minute, self.concurrency)

    def pricing(self) -> Pricing:
        return Pricing(self.kind, self.base_url, self.prices, self.context_window)

    def key_source(self) -> Callable[[], str]:
        """Gives the key of the moment; `placeholder` for servers that may want none. Raises OSError, ValueError."""
        path, key = self.api_key_file, self.api_key
        if path is not None:
            return lambda: _read_key(path)
        if key is not None:
            return key.get_secret_value
        return none_given if self.base_url is None else placeholder


class ProviderRegistry:
    """The providers of one process. `builtin/repair` is always among them; `close` is idempotent.

    `keys` give the key of the moment of providers by name, for those whose settings do not say it themselves; `stored`
    those that the installation keeps for a provider.
    """

    def __init__(
        self,
        settings: Iterable[ProviderSettings] = (),
        keys: Mapping[str, KeySource] | None = None,
        stored: Callable[[str], StoredKeys] = lambda _: NothingStored(),
    ) -> None:
        self._keys = dict(keys or {})
        self._stored = stored
        self._settings: dict[str, ProviderSettings] = {
            BUILTIN: ProviderSettings(name=BUILTIN, kind="builtin", models=RepairProvider.MODELS)
        }
        for item in settings:
            if item.kind == BUILTIN:
                continue
            if item.name in self._settings:
                raise ValueError(f"two providers are named {item.name!r}")
            self._settings[item.name] = item
        self._providers: dict[str, Provider] = {}

    def settings(self) -> tuple[ProviderSettings, ...]:
        """Of every provider, the built-in one first."""
        return tuple(self._settings.values())

    def names(self) -> tuple[str, ...]:
        return tuple(self._settings)

    def models(self) -> tuple[str, ...]:
        """The model strings that are listed by name; a provider that takes any model adds `<name>/*`."""
        return tuple(f"{item.name}/{model}" for item in self._settings.values() for model in (item.models or ("*",)))

    def supports(self, model: str) -> bool:
        """Whether `resolve` would find it. Looks at strings only."""
        return self._find(model) is not None

    def check(self, model: str) -> tuple[ProviderSettings, str]:
        """The provider's settings and the vendor's model name. Raises InvalidInput `unsupported_model`."""
        found = self._find(model)
        if found is None:
            raise InvalidInput(
                f"There is no model {model[:200]!r}. Models: {', '.join(self.models())}.",
                code="unsupported_model",
                pointer="/model",
            )
        return found

    def resolve(self, model: str) -> tuple[Provider, str]:
        """The provider and the vendor's model name. Raises InvalidInput `unsupported_model`.

        The first call for a vendor imports its SDK, which takes about a second: see `preload`.
        """
        settings, name = self.check(model)
        if settings.name not in self._providers:
            self._providers[settings.name] = self._connect(settings)
        return self._providers[settings.name], name

    def preload(self) -> None:
        """Builds every provider, so that a worker pays for the imports before it takes its first call."""
        for name, settings in self._settings.items():
            if name not in self._providers:
                self._providers[name] = self._connect(settings)
            # The price list takes a moment too; asking for any model loads it.
            self._providers[name].context_window("")

    async def close(self) -> None:
        providers, self._providers = self._providers, {}
        for provider in providers.values():
            await provider.close()

    def _connect(self, settings: ProviderSettings) -> Provider:
        source = self._keys.get(settings.name) or settings.key_source()
        return _connect(settings, Keyring(source, self._stored(settings.name)))

    def _find(self, model: str) -> tuple[ProviderSettings, str] | None:
        provider, _, name = model.partition("/")
        settings = self._settings.get(provider)
        if settings is None or not _VENDOR_MODEL.fullmatch(name):
            return None
        if settings.models and name not in settings.models:
            return None
        return settings, name


def _connect(settings: ProviderSettings, keys: Keyring) -> Provider:
    if settings.kind == BUILTIN:
        return RepairProvider()
    # Imported here: the SDKs cost a second and 60 MB, and the edge never calls a model.
    from codeagent.providers.vendor import Connection, Timeouts, VendorProvider  # noqa: PLC0415

    timeouts = Timeouts(
        connect_seconds=settings.connect_timeout_seconds,
        first_token_seconds=settings.first_token_timeout_seconds,
        silence_seconds=settings.silence_timeout_seconds,
    )
    connection: Connection
    if settings.kind == "openai":
        from codeagent.providers.openai import OpenAIConnection  # noqa: PLC0415

        connection = OpenAIConnection(
            settings.name,
            keys,
            timeouts,
            base_url=settings.base_url,
            api=settings.api,
            output_limit_field=settings.output_limit_field,
        )
    elif settings.kind == "anthropic":
        from codeagent.providers.anthropic import AnthropicConnection  # noqa: PLC0415

        connection = AnthropicConnection(keys, timeouts, base_url=settings.base_url)
    else:
        from codeagent.providers.google import GoogleConnection  # noqa: PLC0415

        connection = GoogleConnection(keys, timeouts, base_url=settings.base_url)
    return VendorProvider(settings.name, connection, settings.pricing(), timeouts)


def parse_providers(document: bytes) -> list[ProviderSettings]:
    """A JSON list of providers. Raises `ValueError` naming what is wrong, without what it says: there may be keys in
    it."""
    return TypeAdapter(list[ProviderSettings], config=ConfigDict(hide_input_in_errors=True)).validate_json(document)


def _read_key(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_MAX_KEY_BYTES).decode("ascii").strip()
