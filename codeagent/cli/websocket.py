"""uvicorn's WebSocket with bounds that it lacks, for clients that send and do not read."""

from __future__ import annotations

import asyncio

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

ABORT_SECONDS = 10.0


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """Keeps no more for a client than the transport's high-water mark and one message, and for no longer than
    `ABORT_SECONDS` after the connection was closed."""

    def handle_ping(self) -> None:
        # The library has made the pong; it goes nowhere while older bytes wait for a client that does not read.
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._abort_later()

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "websocket.close":
            # A few bytes, which must not wait for a client that is closed because it takes nothing.
            self.writable.set()
        await super().send(message)

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        self._abort_later()

    def _abort_later(self) -> None:
        """Closing waits until everything is written, which may be never."""
        self.loop.call_later(ABORT_SECONDS, self.transport.abort)
