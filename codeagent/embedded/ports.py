"""Loopback ports for the bundled servers."""

from __future__ import annotations

import random
import socket

from codeagent.errors import Unavailable

# Below the range that systems use for outgoing connections: a client that keeps dialling a dead server's port would
# sooner or later be given that very port as its own end, connect to itself, and keep the server from coming back.
_FIRST, _LAST = 20_000, 32_000


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that was free a moment ago; whoever uses it must be ready to lose the race and ask again."""
    for _ in range(200):
        port = random.randint(_FIRST, _LAST)  # noqa: S311  # spreads load, guards nothing
        if is_free(port):
            return port
    raise Unavailable(f"no free port between {_FIRST} and {_LAST} on 127.0.0.1", code="no_free_port")
