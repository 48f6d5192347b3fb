"""Anthropic Messages, and servers that speak it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anthropic import AsyncAnthropic
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider

from codeagent.providers.keyring import Keyring
from codeagent.providers.models import Recent
from codeagent.providers.vendor import Timeouts
from codeagent.providers.wire import http_client

OFFICIAL_URL = "https://api.anthropic.com"


class AnthropicConnection:
    """A `Connection` to one base URL. The conversation so far is cached at the vendor: an agent sends it every turn."""

    settings: Mapping[str, Any] = {
        "max_retries": 0,
        "anthropic_cache_instructions": True,
        "anthropic_cache_tool_definitions": True,
        "anthropic_cache_messages": True,
    }

    def __init__(self, keys: Keyring, timeouts: Timeouts, *, base_url: str | None = None) -> None:
        self.keys = keys
        self._client = AsyncAnthropic(
            base_url=base_url or OFFICIAL_URL,
            api_key="not-asked-yet",
            webhook_key="",
            max_retries=0,
            http_client=http_client(timeouts),
        )
        self._vendor = AnthropicProvider(anthropic_client=self._client)
        self._models = Recent(self._build)

    def model(self, name: str) -> Model:
        # The SDK reads the attribute when it builds the request, right after this and without a pause.
        self._client.api_key = self.keys.take()
        return self._models(name)

    async def close(self) -> None:
        await self._client.close()

    def _build(self, name: str) -> Model:
        return AnthropicModel(name, provider=self._vendor)
