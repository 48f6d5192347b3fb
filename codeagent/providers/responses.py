"""Closes the HTTP responses that a call leaves open.

SDKs leave that to the garbage collector when a call fails or is cancelled inside a stream; until it comes by, the
vendor goes on writing, and charging, and the connection is taken.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

import httpx2

_opened: ContextVar[list[httpx2.Response] | None] = ContextVar("_opened", default=None)


def note(response: httpx2.Response) -> None:
    """Called by the HTTP client for each response, in the task of the call that it belongs to."""
    opened = _opened.get()
    if opened is not None:
        opened.append(response)


@asynccontextmanager
async def closed_afterwards() -> AsyncIterator[None]:
    opened: list[httpx2.Response] = []
    token = _opened.set(opened)
    try:
        yield
    finally:
        _opened.reset(token)
        for response in opened:
            with contextlib.suppress(Exception):
                await response.aclose()
