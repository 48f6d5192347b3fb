"""Which providers exist, which models they offer, and the provider behind a model string `<provider>/<vendor model>`.

Vendors' SDKs are imported when a worker first resolves one of their models; the edge asks only for names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from codeagent.errors import InvalidInput
from codeagent.providers.keys import KeySource
from codeagent.providers.pricing import Pricing, TokenPrices
from codeagent.providers.protocol import Provider
from codeagent.providers.repair.provider import RepairProvider

BUILTIN = "builtin"
_VENDOR_MODEL = re.compile(r"[!-~]{1,200}")
_MAX_KEY_BYTES = 16_384


class ProviderSettings(BaseModel):
    """One configured provider. Without `base_url` it is the vendor's own service, which needs a key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    kind: Literal["openai", "anthropic", "builtin"]
    base_url: str | None = None
    """Where an OpenAI-compatible or Anthropic-compatible server listens, e.g. `http://127.0.0.1:11434/v1`."""
    api_key: SecretStr | None = None
    """The key, or a reference to it that the composition root resolves: `file:/...`, `env:NAME`, `vault:path#field`."""
    api_key_file: Path | None = None
    """Read again for every call, so that a mounted secret can be replaced while workers run."""
    models: tuple[str, ...] = ()
    """The vendor's model names that may be asked for; empty means any."""
    context_window: int | None = Field(default=None, ge=1024)
    """Tokens, for models the bundled list does not know."""
    prices: dict[str, TokenPrices] = Field(default_factory=dict)
    """By vendor model name; they go before the bundled list."""
    output_limit_field: Literal["max_completion_tokens", "max_tokens"] | None = None
    """How an OpenAI-compatible server calls the limit; by default the older name for servers of one's own."""
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

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.kind == BUILTIN) != (self.name == BUILTIN):
            raise ValueError("the name 'builtin' belongs to the built-in models")
        if self.api_key is not None and self.api_key_file is not None:
            raise ValueError("give api_key or api_key_file, not both")
        if self.kind != BUILTIN and self.base_url is None and self.api_key is None and self.api_key_file is None:
            raise ValueError("the vendor's own service needs api_key or api_key_file")
        return self

    def key_source(self) -> Callable[[], str]:
        """Gives the key of the moment; a placeholder for servers that want none. Raises OSError, ValueError."""
        path, key = self.api_key_file, self.api_key
        if path is not None:
            return lambda: _read_key(path)
        if key is not None:
            return key.get_secret_value
        return lambda: "none"


class ProviderRegistry:
    """The providers of one process. `builtin/repair` is always among them; `close` is idempotent.

    `keys` give the key of the moment of providers by name, for those whose settings do not say it themselves.
    """

    def __init__(self, settings: Iterable[ProviderSettings] = (), keys: Mapping[str, KeySource] | None = None) -> None:
        self._keys = dict(keys or {})
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

    def resolve(self, model: str) -> tuple[Provider, str]:
        """The provider and the vendor's model name. Raises InvalidInput `unsupported_model`.

        The first call for a vendor imports its SDK, which takes about a second: see `preload`.
        """
        found = self._find(model)
        if found is None:
            raise InvalidInput(
                f"There is no model {model[:200]!r}. Models: {', '.join(self.models())}.",
                code="unsupported_model",
                pointer="/model",
            )
        settings, name = found
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
        return _connect(settings, self._keys.get(settings.name) or settings.key_source())

    def _find(self, model: str) -> tuple[ProviderSettings, str] | None:
        provider, _, name = model.partition("/")
        settings = self._settings.get(provider)
        if settings is None or not _VENDOR_MODEL.fullmatch(name):
            return None
        if settings.models and name not in settings.models:
            return None
        return settings, name


def _connect(settings: ProviderSettings, key: KeySource) -> Provider:
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
            key,
            timeouts,
            base_url=settings.base_url,
            output_limit_field=settings.output_limit_field,
        )
    else:
        from codeagent.providers.anthropic import AnthropicConnection  # noqa: PLC0415

        connection = AnthropicConnection(key, timeouts, base_url=settings.base_url)
    pricing = Pricing(settings.kind, settings.base_url, settings.prices, settings.context_window)
    return VendorProvider(settings.name, connection, pricing, timeouts)


def _read_key(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_MAX_KEY_BYTES).decode("ascii").strip()
