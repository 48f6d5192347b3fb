"""Starts a command behind a loopback port that leads to the unix socket given to the sandbox: to the command, that port
is its proxy.

Takes the socket, the port, and the command. Becomes the command; what forwards is a process of its own beside it, which
holds none of the command's descriptors and is not its child.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress

_PIECE_BYTES = 64 << 10


async def forward(listener: socket.socket, target: str) -> None:
    async def connect(near_reader: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(target)
        except OSError:
            near_writer.close()
            return
        await asyncio.gather(copy(near_reader, far_writer), copy(far_reader, near_writer))
        for writer in (near_writer, far_writer):
            writer.close()

    server = await asyncio.start_server(connect, sock=listener)
    await server.serve_forever()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(_PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


def leave_behind(listener: socket.socket, target: str) -> None:
    """Forks twice, so that a command that waits for all its children does not wait for this one."""
    if (middle := os.fork()) != 0:
        os.waitpid(middle, 0)
        return
    if os.fork() == 0:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nothing, stream)
        asyncio.run(forward(listener, target))
    os._exit(0)


def main() -> None:
    target, port, *command = sys.argv[1:]
    listener = socket.create_server(("127.0.0.1", int(port)), backlog=64)
    leave_behind(listener, target)
    listener.close()
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored_by_python, signal.SIG_DFL)
    os.execvp(command[0], command)  # noqa: S606  the command itself decides whether it wants a shell


if __name__ == "__main__":
    main()
