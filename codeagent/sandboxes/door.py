"""Where the proxy of one command takes connections. It keeps few of them at a time: its process serves other commands
as well, and what one connects to must not use up the descriptors of all."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from codeagent.sandboxes.egress import Proxy

_MOST_LIVE = 64
"""Connections at once, whatever has been said on them. Further ones are closed unread."""

_BACKLOG = 100
_LONGEST_REQUEST_BYTES = 8 << 10
_PAUSE_SECONDS = 0.1


@asynccontextmanager
async def listening(socket_path: Path, proxy: Proxy, owner: int) -> AsyncIterator[None]:
    """Serves `proxy` on a unix socket only `owner` may connect to. All its connections end with the body."""
    live: set[asyncio.Task[None]] = set()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.setblocking(False)
        listener.bind(str(socket_path))
        try:
            _hand_over(socket_path, owner)
            listener.listen(_BACKLOG)
            accepting = asyncio.ensure_future(_accept(listener, proxy, live))
            try:
                yield
            finally:
                await _end(accepting)
                await _end(*live)
        finally:
            _remove(socket_path)


async def _accept(listener: socket.socket, proxy: Proxy, live: set[asyncio.Task[None]]) -> None:
    """One at a time, so that a flood of them holds one descriptor beside those that are kept."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            near, _ = await loop.sock_accept(listener)
        except OSError:
            # None are left: others have used them up. Whoever waits is served when there are some again.
            await asyncio.sleep(_PAUSE_SECONDS)
            continue
        if len(live) < _MOST_LIVE:
            task = asyncio.ensure_future(_serve(near, proxy))
            live.add(task)
            task.add_done_callback(live.discard)
        else:
            near.close()
            proxy.turn_away()
        # Where many wait, none of the above did: it is the turn of other commands.
        await asyncio.sleep(0)


async def _serve(near: socket.socket, proxy: Proxy) -> None:
    try:
        reader, writer = await asyncio.open_unix_connection(sock=near, limit=_LONGEST_REQUEST_BYTES)
    except BaseException:
        near.close()
        raise
    await proxy.serve(reader, writer)


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _hand_over(socket_path: Path, owner: int) -> None:
    os.chown(socket_path, owner, owner)
    socket_path.chmod(0o600)


def _remove(socket_path: Path) -> None:
    socket_path.unlink(missing_ok=True)
