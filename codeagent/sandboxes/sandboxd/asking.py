"""One request at a time, as the worker makes it: a socket of its own, the answer, and the way to take it back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from codeagent.sandboxes.protocol import OutputSink, SandboxFailure, SandboxUnavailable
from codeagent.sandboxes.sandboxd.wire import Kind, Malformed, frame, read_frame
from codeagent.sandboxes.sandboxd.words import Answer
from codeagent.sandboxes.uninterrupted import to_the_end

_HANG_UP_SECONDS = 30.0
_UNREAD_BYTES = 64 << 10


async def ask(
    connection: socket.socket,
    words: Mapping[str, Any],
    body: bytes,
    handles: Sequence[int],
    sink: OutputSink,
    within_seconds: float,
) -> Answer:
    """The helper's answer. When this raises, also by cancellation, the helper has ended what was asked for."""
    try:
        request = frame(Kind.REQUEST, words, body)
    except Malformed as error:
        raise SandboxFailure(str(error), reason="too_large", retryable=False) from None
    reader, writer = await _channel(connection, handles)
    try:
        async with asyncio.timeout(within_seconds) as waiting:
            with suppress(ConnectionError):  # refused before it was read: the answer says why
                writer.write(request)
                await writer.drain()
            answer = await _answer(reader, sink)
    except BaseException as error:
        await to_the_end(_hang_up(reader, writer))
        if isinstance(error, TimeoutError) and waiting.expired():
            raise lost(f"the sandbox helper did not answer within {within_seconds:g} s") from error
        if isinstance(error, (ConnectionError, asyncio.IncompleteReadError, Malformed)):
            raise lost("the sandbox helper went away during the operation") from error
        raise
    writer.close()
    return answer


async def _channel(
    connection: socket.socket, handles: Sequence[int]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        try:
            socket.send_fds(connection, [b"r"], [theirs.fileno(), *handles])
        except OSError as error:
            ours.close()
            raise lost("the sandbox helper takes no request") from error
    ours.setblocking(False)
    return await asyncio.open_unix_connection(sock=ours, limit=_UNREAD_BYTES)


async def _answer(reader: asyncio.StreamReader, sink: OutputSink) -> Answer:
    while True:
        kind, header, body = await read_frame(reader)
        match kind:
            case Kind.STDOUT | Kind.STDERR:
                await sink("stdout" if kind is Kind.STDOUT else "stderr", body)
            case Kind.RESULT:
                return header, body
            case Kind.FAILURE:
                if "unproven" in header:
                    raise SandboxUnavailable(header["unproven"])
                raise SandboxFailure(header["detail"], reason=header["reason"], retryable=header["retryable"])
            case _:
                raise Malformed("no answer")


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes the request back and waits until the helper has ended it."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_HANG_UP_SECONDS):
            writer.write_eof()
            while await reader.read(_UNREAD_BYTES):
                pass
    writer.close()


def lost(detail: str) -> SandboxFailure:
    """Another attempt may meet the helper's successor."""
    return SandboxFailure(detail, reason="helper_lost")
