"""The worker's session with the helper: opened, watched, and opened again with the next helper after its end."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from codeagent.sandboxes.protocol import ProbeReport, SandboxUnavailable
from codeagent.sandboxes.sandboxd.asking import lost
from codeagent.sandboxes.sandboxd.wire import MOST_GREETING_BYTES, PROTOCOL
from codeagent.sandboxes.sandboxd.words import read_report

_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS = 0.02, 2.0
_GREETING_SECONDS = 30.0
"""A helper that has to prove itself again says nothing before it has."""

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Session:
    """One connection. Workspaces end with it."""

    connection: socket.socket
    is_lost: bool = False


class Link:
    """Keeps one session with whichever helper listens at `path` and is accepted.

    `accept` is shown what a helper has proven, and whether its commands reach hosts; it raises `SandboxUnavailable` for
    one that is not enough.
    """

    def __init__(self, path: Path, accept: Callable[[ProbeReport, bool], None]) -> None:
        self._path = path
        self._accept = accept
        self._connected = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self.session: Session | None = None
        self.fault: SandboxUnavailable | None = None
        """Why the last helper that was met is not used."""

    async def reached(self, within_seconds: float) -> Session:
        """The session, awaited for so long. Raises `SandboxFailure` (`helper_lost`)."""
        if self._keeper is None:
            self._keeper = asyncio.ensure_future(self._keep_connected())
        if self.session is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_seconds):
                    await self._connected.wait()
        if self.session is None:
            raise lost(f"no sandbox helper answers at {self._path}")
        return self.session

    async def close(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _keep_connected(self) -> None:
        delay = _FIRST_DELAY_SECONDS
        while True:
            try:
                session = await self._connect()
            except (OSError, TimeoutError, SandboxUnavailable) as error:
                if isinstance(error, SandboxUnavailable):
                    self.fault = error
                    _log.warning("the sandbox helper cannot be used: %s", error.detail)
                await asyncio.sleep(delay)
                delay = min(delay * 2, _LONGEST_DELAY_SECONDS)
                continue
            delay, self.fault = _FIRST_DELAY_SECONDS, None
            self.session = session
            self._connected.set()
            try:
                await _readable(session.connection)  # it says nothing more: this is its end
                _log.warning("the sandbox helper is gone")
            finally:
                session.is_lost, self.session = True, None
                self._connected.clear()
                session.connection.close()

    async def _connect(self) -> Session:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.setblocking(False)
            connection.connect(str(self._path))
            async with asyncio.timeout(_GREETING_SECONDS):
                await _readable(connection)
            self._accept(*_greeted(connection.recv(MOST_GREETING_BYTES)))
        except BaseException:
            connection.close()
            raise
        return Session(connection)


def _greeted(packet: bytes) -> tuple[ProbeReport, bool]:
    """What the helper has proven, and whether its commands reach hosts. Raises `SandboxUnavailable`."""
    if not packet:
        raise SandboxUnavailable(["the sandbox helper lets another user's worker in, or has too many"])
    try:
        words = json.loads(packet)
        if words.get("protocol") != PROTOCOL:
            told = f"the sandbox helper speaks version {words.get('protocol')} of its protocol, and this worker"
            raise SandboxUnavailable([f"{told} {PROTOCOL}: let both be of one release"])
        if "unproven" in words:
            raise SandboxUnavailable(words["unproven"])
        return read_report(words["proven"]), bool(words["reaches_out"])
    except (ValueError, TypeError, LookupError, AttributeError):
        raise SandboxUnavailable(
            ["what listens there does not greet as a sandbox helper, or at too great length"]
        ) from None


async def _readable(connection: socket.socket) -> None:
    """Until there is a packet, or the end."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
