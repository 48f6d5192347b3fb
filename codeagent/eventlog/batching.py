"""Natural batching: calls that arrive while one statement runs share the next one. Nobody waits for company."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """Turns `perform(items) -> answers` (same order, same length) into `await batcher(item) -> answer`.

    An error of `perform` is raised to every caller of that batch. A caller that is cancelled stops waiting;
    its item is performed all the same. One batch runs at a time, since fuller ones cost less than more of them at
    once; more `lanes` are for reads that may be long.
    """

    def __init__(
        self,
        perform: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        most: int = 200,
        lanes: int = 1,
    ) -> None:
        self._perform = perform
        self._most = most
        self._lanes = lanes
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, item: Item) -> Answer:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._start()
        return await future

    def _start(self) -> None:
        if self._waiting and len(self._running) < self._lanes:
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._start()

    async def _run(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._perform([item for item, _ in batch])
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error) if isinstance(error, Exception) else future.cancel()
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
