"""The HTTP client under a vendor's SDK: limits on silence and on bytes, and no redirects, which could take a key
elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import httpx2

from codeagent.providers import responses
from codeagent.providers.failures import EndlessAnswer
from codeagent.providers.vendor import Timeouts

_MAX_CONNECTIONS = 1000
"""The worker's slots bound concurrency; a pool that queues would only hide it."""

MAX_RESPONSE_BYTES = 64 * 1024 * 1024
"""Over a hundred bytes of event for each of half a million tokens. SDKs gather lines of any length in memory, and an
error's body whole, so that what counts characters of an answer would never see them."""


def http_client(timeouts: Timeouts) -> httpx2.AsyncClient:
    """A client whose responses may neither fall silent nor go on for ever. Proxies come from the environment, as
    operators expect."""

    async def limit(response: httpx2.Response) -> None:
        response.stream = _Limited(cast(httpx2.AsyncByteStream, response.stream), timeouts.silence_seconds)
        # Not asked for, see below; taken as it is, since a few compressed bytes may stand for any number of others.
        response.headers.pop("content-encoding", None)
        responses.note(response)

    return httpx2.AsyncClient(
        timeout=httpx2.Timeout(timeouts.first_token_seconds, connect=timeouts.connect_seconds),
        limits=httpx2.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=20),
        headers={"Accept-Encoding": "identity"},
        follow_redirects=False,
        event_hooks={"response": [limit]},
    )


class _Limited(httpx2.AsyncByteStream):
    """A response body in which a pause between two chunks is bounded, and their sum; the wait for the first has its
    own limit."""

    def __init__(self, stream: httpx2.AsyncByteStream, seconds: float) -> None:
        self._stream = stream
        self._seconds = seconds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        patience: float | None = None
        received = 0
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
            received += len(chunk)
            if received > MAX_RESPONSE_BYTES:
                raise EndlessAnswer
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
