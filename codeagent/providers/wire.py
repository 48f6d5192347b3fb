"""The HTTP client under a vendor's SDK: time limits on silence, and no redirects, which could take a key elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import httpx2

from codeagent.providers.vendor import Timeouts

_MAX_CONNECTIONS = 1000
"""The worker's slots bound concurrency; a pool that queues would only hide it."""


def http_client(timeouts: Timeouts) -> httpx2.AsyncClient:
    """A client whose responses may not fall silent. Proxies come from the environment, as operators expect."""

    async def limit_silence(response: httpx2.Response) -> None:
        response.stream = _Limited(cast(httpx2.AsyncByteStream, response.stream), timeouts.silence_seconds)

    return httpx2.AsyncClient(
        timeout=httpx2.Timeout(timeouts.first_token_seconds, connect=timeouts.connect_seconds),
        limits=httpx2.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=20),
        follow_redirects=False,
        event_hooks={"response": [limit_silence]},
    )


class _Limited(httpx2.AsyncByteStream):
    """A response body in which a pause between two chunks is bounded; the wait for the first has its own limit."""

    def __init__(self, stream: httpx2.AsyncByteStream, seconds: float) -> None:
        self._stream = stream
        self._seconds = seconds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        patience: float | None = None
        chunks = aiter(self._stream)
        while True:
            try:
                async with asyncio.timeout(patience):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise httpx2.ReadTimeout("the response fell silent") from None
            patience = self._seconds
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
