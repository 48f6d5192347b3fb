"""What worker and helper say to each other.

A worker's session is one unix socket of sequenced packets. The helper opens it with a greeting (JSON); after that the
worker sends one packet a request: one byte, with the socket the request is held over and, for some, files. On that
socket go frames: the request, and back any number of pieces of output and one result or failure. Who closes his end
of it takes the request back.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

PROTOCOL = 4
"""Changed with every change of what is said. The greeting names it, and a worker that speaks another asks nothing."""
MOST_ASKED_BYTES = 2 << 20
"""Of a request's header; an answer may have more to tell, such as the names of all files of a patch."""
MOST_HEADER_BYTES = 16 << 20
MOST_BODY_BYTES = 8 << 20
MOST_GREETING_BYTES = 16 << 10
_PREFIX = struct.Struct("!BII")


class Kind(IntEnum):
    """What a frame is."""

    REQUEST = 0
    STDOUT = 1
    STDERR = 2
    RESULT = 3
    FAILURE = 4


class Malformed(Exception):
    """The other side does not speak this protocol, or says more than it may."""


def frame(kind: Kind, header: Mapping[str, Any], body: bytes = b"") -> bytes:
    """Raises `Malformed` for what the other side would refuse."""
    head = json.dumps(header, separators=(",", ":"), allow_nan=False).encode() if header else b""
    if len(head) > (MOST_ASKED_BYTES if kind is Kind.REQUEST else MOST_HEADER_BYTES) or len(body) > MOST_BODY_BYTES:
        raise Malformed("more than a frame may hold")
    return _PREFIX.pack(kind, len(head), len(body)) + head + body


async def read_frame(
    reader: asyncio.StreamReader, most_header_bytes: int = MOST_HEADER_BYTES
) -> tuple[Kind, dict[str, Any], bytes]:
    """Raises `Malformed`, and `asyncio.IncompleteReadError` at the end of the stream."""
    number, head_bytes, body_bytes = _PREFIX.unpack(await reader.readexactly(_PREFIX.size))
    if head_bytes > most_header_bytes or body_bytes > MOST_BODY_BYTES:
        raise Malformed("more than a frame may hold")
    head = await reader.readexactly(head_bytes)
    body = await reader.readexactly(body_bytes)
    try:
        kind = Kind(number)
        header = json.loads(head, parse_constant=_refuse) if head else {}
    except (ValueError, RecursionError):
        raise Malformed("a frame that cannot be read") from None
    if not isinstance(header, dict):
        raise Malformed("a frame without names")
    return kind, header, body


def _refuse(name: str) -> None:
    raise ValueError(name)
