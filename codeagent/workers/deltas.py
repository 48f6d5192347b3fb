"""Live text on its way to whoever watches: gathered for a moment, sent without waiting, lost without harm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal
from uuid import UUID

from codeagent.messages.results import Delta
from codeagent.sandboxes.plain_text import PlainText

GATHER_SECONDS = 0.05
MOST_CHARACTERS = 16_000
Send = Callable[[str, bytes], Awaitable[None]]
"""Hands (key, value) to the deltas topic. Returns at once and never raises."""


async def unsent(key: str, value: bytes) -> None:
    """The `Send` of those who are shown no live text."""


class DeltaSender:
    """The deltas of one effect. Text of an earlier attempt is marked by its number, so that clients can drop it."""

    def __init__(
        self, send: Send, name: Literal["message.delta", "tool.output.delta"], run_id: str, effect_id: UUID
    ) -> None:
        self._send = send
        self._name = name
        self._run_id = run_id
        self._effect_id = effect_id
        self._attempt = 1
        self._sequence = 0
        self._gathered: dict[Literal["text", "stdout", "stderr"], list[str]] = {}
        self._flushing: asyncio.Task[None] | None = None

    def begin_attempt(self, attempt: int) -> None:
        self._attempt = attempt
        self._sequence = 0
        self._gathered.clear()

    async def write(self, stream: Literal["text", "stdout", "stderr"], text: str) -> None:
        if not text:
            return
        self._gathered.setdefault(stream, []).append(text)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush_soon())

    async def write_whole(self, stream: Literal["text", "stdout", "stderr"], text: str) -> None:
        """Text that is there already, none of which is cut: in as many deltas as it takes."""
        for start in range(0, len(text), MOST_CHARACTERS):
            await self.write(stream, text[start : start + MOST_CHARACTERS])
            await self.flush()

    async def _flush_soon(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        await self.flush()

    async def flush(self) -> None:
        gathered, self._gathered = self._gathered, {}
        for stream, pieces in gathered.items():
            text = "".join(pieces)
            # Whoever writes faster than can be watched is cut: the whole output is kept elsewhere.
            if len(text) > MOST_CHARACTERS:
                text = f"{text[:MOST_CHARACTERS]}\n[…]\n"
            self._sequence += 1
            delta = Delta(
                name=self._name,
                run_id=self._run_id,
                effect_id=self._effect_id,
                attempt=self._attempt,
                sequence=self._sequence,
                stream=stream,
                text=text,
            )
            await self._send(self._run_id, delta.model_dump_json().encode())

    async def close(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.gather(self._flushing, return_exceptions=True)
        await self.flush()


class LiveOutput:
    """A command's output on its way to whoever watches, as text: both streams, each in whole characters."""

    def __init__(self, deltas: DeltaSender) -> None:
        self._deltas = deltas
        self._texts: dict[Literal["stdout", "stderr"], PlainText] = {"stdout": PlainText(), "stderr": PlainText()}
        self.begin_attempt = deltas.begin_attempt

    async def write(self, stream: str, piece: bytes) -> None:
        name: Literal["stdout", "stderr"] = "stderr" if stream == "stderr" else "stdout"
        await self._deltas.write(name, self._texts[name].feed(piece))

    async def close(self) -> None:
        for name, text in self._texts.items():
            await self._deltas.write(name, text.finish())
        await self._deltas.close()


@asynccontextmanager
async def live_output(send: Send, run_id: str, effect_id: UUID, attempt: int) -> AsyncIterator[LiveOutput]:
    """Of one attempt of one effect. All of it is sent when the body has ended."""
    live = LiveOutput(DeltaSender(send, "tool.output.delta", run_id, effect_id))
    live.begin_attempt(attempt)
    try:
        yield live
    finally:
        await live.close()
