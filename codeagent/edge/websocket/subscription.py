"""One subscription of a connection: a stream of its own, with a window that the client's acknowledgements move."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from codeagent.edge.joined import EventStream
from codeagent.edge.websocket.frames import stream_frame

Send = Callable[[str], Awaitable[None]]


class Subscription:
    """What `name` follows, sent frame by frame. While a frame waits, the stream behind it buffers, and drops deltas."""

    def __init__(self, name: str, stream: EventStream[Any], send: Send, window: int | None) -> None:
        self.name = name
        self._stream = stream
        self._send = send
        self._window = window
        self._unacknowledged: deque[str] = deque()
        self._moved = asyncio.Event()

    async def run(self) -> None:
        async with aclosing(self._stream.frames()) as frames:
            async for frame in frames:
                if frame.position is not None and self._window is not None:
                    await self._room(frame.position, self._window)
                await self._send(stream_frame(self.name, frame))

    async def _room(self, position: str, window: int) -> None:
        while len(self._unacknowledged) >= window and not self._stream.ending:
            self._moved.clear()
            await self._moved.wait()
        self._unacknowledged.append(position)

    def acknowledge(self, position: str) -> bool:
        """Whether that is a position which was sent and is not acknowledged yet. Without a window, all are good."""
        if self._window is None:
            return True
        if position not in self._unacknowledged:
            return False
        while self._unacknowledged.popleft() != position:
            pass
        self._moved.set()
        return True

    def finish(self, reason: str) -> None:
        """Ends it soon, with a last `stream.end`."""
        self._stream.finish(reason)
        self._moved.set()
