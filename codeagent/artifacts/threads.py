"""Blocking work in threads, without leaving a thread at work on files its caller has already given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of blocking `function`. A cancellation that arrives meanwhile is raised once the thread is done."""
    call = partial(copy_context().run, partial(function, *args, **kwargs))
    # A plain future, no task: whoever cancels all tasks at shutdown must not cut this one off its thread.
    running = asyncio.get_running_loop().run_in_executor(None, call)
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return running.result()
    running.exception()  # marked as seen: the cancellation outweighs it
    raise cancelled
