"""Work that must come to its end even if the caller is cancelled meanwhile: kills, barriers, clean-up, threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. A cancellation that arrives meanwhile is raised when the work is done, not before."""
    task = asyncio.ensure_future(work)
    interruption: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            interruption = error
    if interruption is not None:
        if not task.cancelled():
            task.exception()  # seen: the cancellation outweighs it
        raise interruption
    return task.result()


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs blocking `function` in a thread and never leaves the thread behind."""
    return await to_the_end(asyncio.to_thread(function, *args, **kwargs))


async def in_stoppable_thread(work: Callable[[threading.Event], T]) -> T:
    """The same for what takes long: its event is set when the caller is cancelled, and it should then soon end."""
    canceled = threading.Event()
    running = asyncio.ensure_future(in_thread(work, canceled))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        canceled.set()
        await asyncio.gather(running, return_exceptions=True)
        raise
