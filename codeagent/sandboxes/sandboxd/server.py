"""Lets the worker's user in, and nobody else, and notices when a worker is gone."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import shutil
import socket
import struct
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from codeagent.sandboxes.offers import OfferedDriver
from codeagent.sandboxes.protocol import SandboxUnavailable
from codeagent.sandboxes.sandboxd.requests import Ceiling
from codeagent.sandboxes.sandboxd.session import MOST_HANDLES, Session
from codeagent.sandboxes.sandboxd.wire import PROTOCOL
from codeagent.sandboxes.sandboxd.words import report_words

MOST_SESSIONS = 16
_BACKLOG = 16
_CREDENTIALS = struct.Struct("3i")
_LONGEST_SOCKET_PATH = 107

_log = logging.getLogger(__name__)


class SandboxServer:
    """Serves `driver` on a unix socket that `uid` alone may use.

    `ceiling` bounds every request. `scratch` is an existing directory of this process alone.
    """

    def __init__(self, driver: OfferedDriver, ceiling: Ceiling, scratch: Path, *, uid: int, gid: int) -> None:
        self._driver = driver
        self._ceiling = ceiling
        self._scratch = scratch
        self._uid, self._gid = uid, gid
        self._listener: socket.socket | None = None
        self._path = Path()
        self._sessions: dict[socket.socket, Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, path: Path) -> None:
        """Proves the driver, removes what a predecessor left, and listens. Raises `SandboxUnavailable`, `OSError`."""
        await self._driver.probe()
        await self._driver.reap(frozenset())
        listener = _listen(path, self._gid)
        self._listener, self._path = listener, path
        asyncio.get_running_loop().add_reader(listener, self._accept)

    async def stop(self) -> None:
        """Ends every session, and with them what their workers had."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._path.unlink(missing_ok=True)
            self._listener = None
        for connection in list(self._sessions):
            self._end(connection)
        await asyncio.gather(*self._tasks)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        pid, uid, _ = _CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        if uid != self._uid or len(self._sessions) >= MOST_SESSIONS:
            _log.warning("process %d of user %d was turned away, beside %d workers", pid, uid, len(self._sessions))
            connection.close()
            return
        connection.setblocking(False)
        self._sessions[connection] = Session(self._driver, self._ceiling, self._scratch)
        asyncio.get_running_loop().add_reader(connection, self._receive, connection)
        self._keep(self._greet(connection))
        _log.info("worker %d is connected", pid)

    async def _greet(self, connection: socket.socket) -> None:
        """Says what is proven. After a proof that failed it is tried again; without one the worker is turned away."""
        try:
            report = await self._driver.probe()
            words: dict[str, Any] = {"proven": report_words(report), "reaches_out": self._driver.reaches_out}
        except SandboxUnavailable as unavailable:
            words = {"unproven": unavailable.reasons}
        if connection not in self._sessions:
            return
        with suppress(OSError):
            connection.send(json.dumps({"protocol": PROTOCOL, **words}).encode())
        if "proven" not in words:
            self._end(connection)

    def _receive(self, connection: socket.socket) -> None:
        try:
            packet, handles, _, _ = socket.recv_fds(connection, 1, MOST_HANDLES, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            packet, handles = b"", []
        if not packet:
            for handle in handles:  # a packet of nothing may bring some, and is no end
                os.close(handle)
            self._end(connection)
            return
        self._sessions[connection].begin(handles)

    def _end(self, connection: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(connection)
        connection.close()
        self._keep(self._sessions.pop(connection).end())
        _log.info("a worker is gone")

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _listen(path: Path, gid: int) -> socket.socket:
    """Raises `OSError`."""
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise OSError(errno.ENAMETOOLONG, f"{path} is too long for a socket: choose a shorter directory")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.setblocking(False)
    # Made for root alone, and only then for the group: nobody may slip in between.
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    os.chown(path, os.geteuid(), gid)
    path.chmod(0o660)
    listener.listen(_BACKLOG)
    return listener


def empty_scratch(directory: Path) -> Path:
    """A directory that nobody else enters, without what a predecessor left in it. Blocking."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700, parents=True)
    return directory
