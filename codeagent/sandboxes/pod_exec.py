"""Starts a program in a container of a pod, through the `exec` subresource and a WebSocket.

No runner listens inside: it would need a port that the pod's network policy has to open, keys that a command must not
see, and a process that a command under the same user could kill. The API server already knows who asks. Its weaknesses
are met so: what is run, and the program that runs it, are told on standard input, not in the address, which servers log
and limit in length; and since a connection that ends leaves the program running, the driver ends every process after
each command.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, WebSocketException

from codeagent.sandboxes.cluster import REQUEST_SECONDS, ApiRefused, ClusterApi, NoAnswer
from codeagent.sandboxes.protocol import SandboxFailure

PROTOCOL = "v5.channel.k8s.io"
_PROGRAM = (Path(__file__).with_name("inside") / "pod.py").read_bytes()
_STDIN, _STDOUT, _STDERR, _STATUS, _CLOSE = 0, 1, 2, 3, 255
_STREAMS = {_STDOUT: "stdout", _STDERR: "stderr"}
_PIECE_BYTES = 64 << 10
_MOST_FRAME_BYTES = 1 << 20
_STATUS_BYTES = 64 << 10

# Takes the program from standard input, and leaves what follows it to the program.
_LOADER = """import os
p = b''
while len(p) < SIZE:
    b = os.read(0, SIZE - len(p))
    if not b: raise SystemExit(4)
    p += b
exec(p)""".replace("SIZE", str(len(_PROGRAM)))
_PAUSES_SECONDS = (0.1, 0.4, 1.0)
_NOT_STARTED = frozenset({429, 500, 503})
"""What an API server answers that is busy, or does not reach the node or the container."""
_PING_SECONDS, _PONG_SECONDS = 15.0, 60.0
"""Whoever reads output slowly does not see the pong behind it."""

_log = logging.getLogger(__name__)
_log.setLevel(logging.INFO)  # at DEBUG the library logs the header that holds the token, and what is sent

END_SECONDS = 15.0
# Only what the shell itself can do: where the processes are used up, none could be started. It ends when nobody is left
# to be killed but the first process and itself.
_END_ALL = (
    "while kill -9 -1 2>/dev/null; do :; done; "
    "cat /sys/fs/cgroup/memory.events /sys/fs/cgroup/cpu.stat 2>/dev/null; exit 0"
)

OutputTaker = Callable[[str, bytes], Awaitable[None]]


class Broken(SandboxFailure):
    """The connection ended before the program's end was told. The pod may tell why."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the connection to a pod broke ({why})", reason="connection_lost")


async def perform(
    api: ClusterApi, pod: str, container: str, request: dict[str, Any], data: bytes, take: OutputTaker
) -> int:
    """Has `inside/pod.py` do `request`, with `data` behind it; returns the exit code. Raises `ApiRefused`, `Broken`."""
    told = json.dumps(request).encode()
    stdin = _PROGRAM + b"%08x" % len(told) + told + data
    return await execute(api, pod, container, ("python3", "-I", "-c", _LOADER), stdin, take)


async def execute(
    api: ClusterApi, pod: str, container: str, words: Sequence[str], stdin: bytes, take: OutputTaker
) -> int:
    """Runs `words` until they end; the caller limits the time. As `perform`."""
    async with _connected(api, pod, container, words) as connection:
        feeding = asyncio.ensure_future(_feed(connection, stdin))
        try:
            return await _listen(connection, take)
        except WebSocketException as error:
            raise Broken(type(error).__name__) from None
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)


async def end_all(api: ClusterApi, pod: str, container: str) -> bytes:
    """Ends every process of a container but its first. Returns what its control group counted, `name value` lines,
    where it can be read. Raises `SandboxFailure` unless it is certain that none is left."""
    counted = bytearray()

    async def take(stream: str, piece: bytes) -> None:
        if stream == "stdout":
            counted.extend(piece)

    words = ("/bin/sh", "-c", _END_ALL)
    try:
        async with asyncio.timeout(END_SECONDS):
            try:
                code = await execute(api, pod, container, words, b"", take)
            except (Broken, NoAnswer):
                # Once more does no harm, and a pod is not given up for a server that was replaced.
                counted.clear()
                code = await execute(api, pod, container, words, b"", take)
    except TimeoutError:
        raise Broken("processes could not be ended in time") from None
    if code != 0:
        raise Broken("processes could not be ended")
    return bytes(counted)


@asynccontextmanager
async def _connected(
    api: ClusterApi, pod: str, container: str, words: Sequence[str]
) -> AsyncIterator[ClientConnection]:
    query = [("container", container), ("stdin", "true"), ("stdout", "true"), ("stderr", "true")]
    query += [("command", word) for word in words]
    address = "ws" + api.cluster.address.removeprefix("http") + api.namespaced("pods", pod) + "/exec"
    connection = await _connect(api, f"{address}?{urlencode(query)}")
    try:
        if connection.subprotocol != PROTOCOL:
            why = f"the cluster does not speak {PROTOCOL}: Kubernetes 1.30 does"
            raise SandboxFailure(why, reason="cluster_unsupported", retryable=False)
        yield connection
    finally:
        await connection.close()


class _Direct(connect):
    """Follows no redirect: what runs, and the token, are for one server."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


async def _connect(api: ClusterApi, address: str) -> ClientConnection:
    """Tries again for a while where nothing was started. Raises `ApiRefused`, `NoAnswer`."""
    pauses = iter(_PAUSES_SECONDS)
    while True:
        headers, trust = await api.headers(), await api.trust()
        try:
            return await _Direct(
                address,
                subprotocols=[PROTOCOL],  # type: ignore[list-item]  # a NewType of str
                additional_headers=headers,
                ssl=trust,
                logger=_log,
                open_timeout=REQUEST_SECONDS,
                close_timeout=1.0,
                ping_interval=_PING_SECONDS,
                ping_timeout=_PONG_SECONDS,
                max_size=_MOST_FRAME_BYTES,
                max_queue=4,
                compression=None,
                proxy=None,
            )
        except InvalidStatus as error:
            status = error.response.status_code
            pause = next(pauses, None)
            if status not in _NOT_STARTED or pause is None:
                raise ApiRefused(status, "a program cannot be started in the pod") from None
        except (InvalidHandshake, OSError, TimeoutError) as error:
            raise NoAnswer(error) from None
        await asyncio.sleep(pause)


async def _feed(connection: ClientConnection, stdin: bytes) -> None:
    for start in range(0, len(stdin), _PIECE_BYTES):
        await connection.send(bytes([_STDIN]) + stdin[start : start + _PIECE_BYTES])
    await connection.send(bytes([_CLOSE, _STDIN]))


async def _listen(connection: ClientConnection, take: OutputTaker) -> int:
    status = b""
    async for frame in connection:
        if not isinstance(frame, bytes) or not frame:
            continue
        channel, content = frame[0], frame[1:]
        if channel == _STATUS:
            status += content
            if len(status) > _STATUS_BYTES:
                break
        elif channel in _STREAMS and content:
            await take(_STREAMS[channel], content)
    return exit_code(status)


def exit_code(status: bytes) -> int:
    """What the status says that ends an exec. Raises `Broken` where no program has ended."""
    try:
        told = json.loads(status)
        if told["status"] == "Success":
            return 0
        causes = told["details"]["causes"] if told["reason"] == "NonZeroExitCode" else []
        return next(int(cause["message"]) for cause in causes if cause["reason"] == "ExitCode")
    except (ValueError, LookupError, TypeError, StopIteration):
        raise Broken("no exit code was told") from None
