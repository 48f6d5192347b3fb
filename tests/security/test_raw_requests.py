"""What is no request, or two that look like one: one refusal, the connection ends, and nothing runs in its shadow."""

from __future__ import annotations

import asyncio
import json

from tests.integration.edge.test_every_route import Record
from tests.integration.edge.wire import Served
from tests.security.attacked import Target
from tests.security.leaks import leaks

SHADOW = b"GET /v1/me HTTP/1.1\r\nHost: edge\r\nX-Shadow: 1\r\n\r\n"
"""A second request in the body of the first. It would be answered 401, on the same connection."""


async def everything(target: Target, request: bytes) -> bytes:
    """All that comes back until the server ends the connection."""
    served = Served(int(target.url.rpartition(":")[2]))
    async with served.connection() as connection:
        await connection.send(request)
        connection.writer.write_eof()
        async with asyncio.timeout(10):
            return await connection.reader.read()


def post(*lines: str, body: bytes = b"") -> bytes:
    head = "\r\n".join(["POST /oauth2/token HTTP/1.1", "Host: edge", *lines, "", ""])
    return head.encode("latin-1") + body


FRAMING: dict[str, bytes] = {
    "length and chunks": post("Content-Length: 6", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SHADOW),
    "chunks and length": post("Transfer-Encoding: chunked", "Content-Length: 200", body=b"0\r\n\r\n" + SHADOW),
    "two lengths": post("Content-Length: 0", f"Content-Length: {len(SHADOW)}", body=SHADOW),
    "a list of lengths": post("Content-Length: 0, 5", body=SHADOW),
    "a negative length": post("Content-Length: -1", body=SHADOW),
    "a signed length": post("Content-Length: +0", body=SHADOW),
    "a length in hexadecimal": post("Content-Length: 0x0", body=SHADOW),
    "a length beyond all bounds": post("Content-Length: 99999999999999999999999", body=SHADOW),
    "an empty length": post("Content-Length: ", body=SHADOW),
    "an unknown coding": post("Transfer-Encoding: xchunked", body=SHADOW),
    "a coding after chunked": post("Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + SHADOW),
    "chunked twice": post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SHADOW),
    "a tab before chunked": post("Transfer-Encoding:\x0bchunked", body=b"0\r\n\r\n" + SHADOW),
    "a space before the colon": post("Transfer-Encoding : chunked", body=b"0\r\n\r\n" + SHADOW),
    "a folded header": post("X-A: b", " Transfer-Encoding: chunked", body=SHADOW),
    "a size that is none": post("Transfer-Encoding: chunked", body=b"zz\r\n" + SHADOW),
    "a negative size": post("Transfer-Encoding: chunked", body=b"-1\r\n" + SHADOW),
    "a size in C": post("Transfer-Encoding: chunked", body=b"0x1\r\na\r\n0\r\n\r\n" + SHADOW),
    "a size that overflows": post("Transfer-Encoding: chunked", body=b"FFFFFFFFFFFFFFFFFF\r\n" + SHADOW),
    "a chunk without its end": post("Transfer-Encoding: chunked", body=b"1\r\nab\r\n0\r\n\r\n" + SHADOW),
    "a NUL in a name": b"GET /livez HTTP/1.1\r\nHost: edge\r\nX\x00A: b\r\n\r\n" + SHADOW,
    "a NUL in a value": b"GET /livez HTTP/1.1\r\nHost: edge\r\nX-A: b\x00c\r\n\r\n" + SHADOW,
    "a bare CR in a value": b"GET /livez HTTP/1.1\r\nHost: edge\r\nX-A: b\rX-B: c\r\n\r\n" + SHADOW,
    "a NUL in the path": b"GET /livez\x00 HTTP/1.1\r\nHost: edge\r\n\r\n" + SHADOW,
    "a space in the path": b"GET /li vez HTTP/1.1\r\nHost: edge\r\n\r\n" + SHADOW,
    "no method": b" /livez HTTP/1.1\r\nHost: edge\r\n\r\n" + SHADOW,
    "a method in small letters": b"get /livez HTTP/1.1\r\nHost: edge\r\n\r\n" + SHADOW,
    "HTTP of the future": b"GET /livez HTTP/9.9\r\nHost: edge\r\n\r\n" + SHADOW,
    "HTTP/2 without being asked": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SHADOW,
}


async def test_what_has_two_readings_is_refused_and_nothing_follows_it(target: Target, record_property: Record) -> None:
    wrong = {}
    for name, request in FRAMING.items():
        answer = await everything(target, request)
        head, _, body = answer.partition(b"\r\n\r\n")
        status = head.split(b" ")[1] if head.startswith(b"HTTP/1.1 ") else b""
        code = json.loads(body).get("code") if body.startswith(b"{") and answer.count(b"HTTP/1.1 ") == 1 else None
        if (
            status not in {b"400", b"431"}
            or code is None
            or b"\r\nconnection: close" not in head.lower()
            or leaks(body)
        ):
            wrong[name] = answer
    record_property("cases", len(FRAMING))
    assert wrong == {}
