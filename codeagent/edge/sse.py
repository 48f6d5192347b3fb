"""A stream as Server-Sent Events."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from sse_starlette import EventSourceResponse, ServerSentEvent

from codeagent.edge.joined import EventStream, P

TRANSPORT = "sse"
SEND_TIMEOUT_SECONDS = 30
STREAM_ITEM: dict[str, Any] = {
    "type": "object",
    "description": "One Server-Sent Event.",
    "properties": {
        "event": {"type": "string", "description": "The event's name, such as `run.completed`."},
        "id": {"type": "string", "description": "The run's version; absent on events that are only live."},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "retry": {"type": "integer", "description": "Milliseconds until the client should come back."},
    },
    "required": ["event", "data"],
}


async def _server_sent(stream: EventStream[P]) -> AsyncIterator[ServerSentEvent]:
    # Spread out, so that a restarted edge is not met by everybody at the same moment.
    retry: int | None = random.randint(1_500, 4_500)  # noqa: S311  not for secrets
    async with aclosing(stream.frames()) as frames:
        async for frame in frames:
            yield ServerSentEvent(event=frame.name, id=frame.position, data=frame.data, retry=retry)
            retry = None


def sse_response(stream: EventStream[P]) -> EventSourceResponse:
    """A client that takes nothing for `SEND_TIMEOUT_SECONDS` is cut off: it resumes from the last id it has."""
    return EventSourceResponse(
        _server_sent(stream),
        ping=3600,
        send_timeout=SEND_TIMEOUT_SECONDS,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
