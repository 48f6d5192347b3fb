"""Google's Gemini API, and servers that speak it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2
from google.genai import Client
from google.genai.types import HttpOptions
from pydantic_ai.models import Model
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.providers.google import GoogleProvider

from codeagent.providers.keyring import Keyring
from codeagent.providers.models import Recent
from codeagent.providers.vendor import Timeouts
from codeagent.providers.wire import http_client

OFFICIAL_URL = "https://generativelanguage.googleapis.com"
_KEY_HEADER = "x-goog-api-key"


class GoogleConnection:
    """A `Connection` to one base URL. Address, key and project never come from the SDK's environment variables."""

    settings: Mapping[str, Any] = {"max_retries": 0}

    def __init__(self, keys: Keyring, timeouts: Timeouts, *, base_url: str | None = None) -> None:
        self.keys = keys
        self._http = http_client(timeouts)
        self._http.event_hooks["request"].append(self._prepare)
        options = HttpOptions(base_url=base_url or OFFICIAL_URL, httpx_async_client=self._http)
        self._client = Client(vertexai=False, api_key="not-asked-yet", http_options=options)
        self._vendor = GoogleProvider(client=self._client)
        self._models = Recent(self._build)

    def model(self, name: str) -> Model:
        return self._models(name)

    async def close(self) -> None:
        self._client.close()
        await self._client.aio.aclose()
        await self._http.aclose()

    def _build(self, name: str) -> Model:
        return GoogleModel(name, provider=self._vendor)

    async def _prepare(self, request: httpx2.Request) -> None:
        # The SDK keeps the key that it was made with, and has one limit of time for everything or none.
        request.headers[_KEY_HEADER] = self.keys.take()
        request.extensions["timeout"] = self._http.timeout.as_dict()
