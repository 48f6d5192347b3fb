"""OpenAI Chat Completions, and every server that speaks it: vLLM, Ollama, llama.cpp, LM Studio, gateways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from openai import AsyncOpenAI, Omit
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers import Provider as VendorClient
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

from codeagent.providers.keys import ApiKey, KeySource
from codeagent.providers.models import Recent
from codeagent.providers.vendor import Timeouts
from codeagent.providers.wire import http_client

OFFICIAL_URL = "https://api.openai.com/v1"

OutputLimitField = Literal["max_completion_tokens", "max_tokens"]


class OpenAIConnection:
    """A `Connection` to one base URL. Address, key and organisation never come from the SDK's environment variables."""

    settings: Mapping[str, Any] = {"max_retries": 0}

    def __init__(
        self,
        name: str,
        key: KeySource,
        timeouts: Timeouts,
        *,
        base_url: str | None = None,
        output_limit_field: OutputLimitField | None = None,
    ) -> None:
        self.key = ApiKey(key)
        self._client = AsyncOpenAI(
            base_url=base_url or OFFICIAL_URL,
            api_key=self._next_key,
            admin_api_key="",
            webhook_secret="",
            max_retries=0,
            http_client=http_client(timeouts),
            default_headers={"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()},  # type: ignore[dict-item]
        )
        self._vendor: VendorClient[AsyncOpenAI] = (
            OpenAICompatibleProvider(name, openai_client=self._client)
            if base_url
            else OpenAIProvider(openai_client=self._client)
        )
        # Servers of one's own know the older field; OpenAI's reasoning models refuse it.
        limit_field = output_limit_field or ("max_tokens" if base_url else "max_completion_tokens")
        self._profile = OpenAIModelProfile(
            openai_chat_supports_max_completion_tokens=limit_field == "max_completion_tokens",
            openai_chat_streaming_requires_finish_reason=True,
        )
        self._models = Recent(self._build)

    def model(self, name: str) -> Model:
        return self._models(name)

    async def close(self) -> None:
        await self._client.close()

    def _build(self, name: str) -> Model:
        return OpenAIChatModel(name, provider=self._vendor, profile=self._profile)

    async def _next_key(self) -> str:
        return self.key.take()
