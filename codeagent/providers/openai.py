"""OpenAI's two APIs, Responses and Chat Completions, and every server that speaks one: vLLM, Ollama, llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from openai import AsyncOpenAI, Omit
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers import Provider as VendorClient
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

from codeagent.providers.keyring import Keyring
from codeagent.providers.models import Recent
from codeagent.providers.vendor import Timeouts
from codeagent.providers.wire import http_client

OFFICIAL_URL = "https://api.openai.com/v1"

OutputLimitField = Literal["max_completion_tokens", "max_tokens"]
Api = Literal["responses", "chat"]


class OpenAIConnection:
    """A `Connection` to one base URL. Address, key and organisation never come from the SDK's environment variables.

    Without `api`, the vendor's own service is asked by Responses and other servers by Chat Completions.
    """

    def __init__(
        self,
        name: str,
        keys: Keyring,
        timeouts: Timeouts,
        *,
        base_url: str | None = None,
        api: Api | None = None,
        output_limit_field: OutputLimitField | None = None,
    ) -> None:
        self.keys = keys
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
            # What the model thought is not in our conversations, so nothing is fetched that would be dropped.
            openai_supports_encrypted_reasoning_content=False,
        )
        self._api: Api = api or ("chat" if base_url else "responses")
        # The vendor keeps what it answered for a month unless one says no; not every other server knows the word.
        store = {"openai_store": False} if self._api == "responses" or base_url is None else {}
        self.settings: Mapping[str, Any] = {"max_retries": 0, **store}
        self._models = Recent(self._build)

    def model(self, name: str) -> Model:
        return self._models(name)

    async def close(self) -> None:
        await self._client.close()

    def _build(self, name: str) -> Model:
        kind = OpenAIResponsesModel if self._api == "responses" else OpenAIChatModel
        return kind(name, provider=self._vendor, profile=self._profile)

    async def _next_key(self) -> str:
        return self.keys.take()
