"""Carries a command's output from its pipe to the caller, no faster than the caller takes it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from codeagent.sandboxes.protocol import OutputSink

_PIECE_BYTES = 64 << 10


class Capture:
    """One output stream. Keeps the first bytes, counts all of them, and reports when there are too many."""

    def __init__(self, name: str, handle: int, sink: OutputSink, kept_bytes: int, hard_bytes: int) -> None:
        self._name = name
        self._handle = handle
        self._sink = sink
        self._kept_bytes = kept_bytes
        self._hard_bytes = hard_bytes
        self._kept = bytearray()
        self.seen_bytes = 0
        os.set_blocking(handle, False)

    @property
    def kept(self) -> bytes:
        return bytes(self._kept)

    @property
    def truncated(self) -> bool:
        return self.seen_bytes > len(self._kept)

    async def carry(self, overflow: Callable[[], None]) -> None:
        """Runs until the last writer has closed the pipe. Calls `overflow` once beyond the hard limit, then stops."""
        while self.seen_bytes <= self._hard_bytes:
            piece = self._read()
            if piece is None:
                await _readable(self._handle)
            elif not piece:
                return
            elif kept := self._keep(piece):
                await self._sink(self._name, kept)
        overflow()

    def drain(self) -> None:
        """Takes what is still in the pipe when its writers are gone, without telling the caller."""
        while self.seen_bytes <= self._hard_bytes and (piece := self._read()):
            self._keep(piece)

    def _read(self) -> bytes | None:
        try:
            return os.read(self._handle, _PIECE_BYTES)
        except BlockingIOError:
            return None

    def _keep(self, piece: bytes) -> bytes:
        self.seen_bytes += len(piece)
        kept = piece[: max(0, self._kept_bytes - len(self._kept))]
        self._kept += kept
        return kept


async def _readable(handle: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(handle, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(handle)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def discard(_stream: str, _piece: bytes) -> None:
    """A sink for operations whose output only the driver reads."""
