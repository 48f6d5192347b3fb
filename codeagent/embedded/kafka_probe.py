"""Asks a server whether it speaks the Kafka protocol, with one ApiVersions request over a plain socket."""

from __future__ import annotations

import socket
import struct

_API_VERSIONS = 18
_MAX_ANSWER_BYTES = 1 << 20


def api_versions(host: str, port: int, timeout_seconds: float) -> dict[int, tuple[int, int]]:
    """The broker's API keys with the lowest and highest version it takes of each.

    Raises OSError when nothing listens or answers in time, ValueError when the answer is not Kafka's.
    """
    correlation_id = 1
    client = b"codeagent-probe"
    request = struct.pack(">hhih", _API_VERSIONS, 0, correlation_id, len(client)) + client
    with socket.create_connection((host, port), timeout_seconds) as connection:
        connection.settimeout(timeout_seconds)
        connection.sendall(struct.pack(">i", len(request)) + request)
        (size,) = struct.unpack(">i", _receive(connection, 4))
        if not 10 <= size <= _MAX_ANSWER_BYTES:
            raise ValueError("the answer is not an ApiVersions response")
        answer = _receive(connection, size)
    identifier, error_code, count = struct.unpack_from(">ihi", answer)
    if identifier != correlation_id or error_code != 0 or not 0 <= count <= (size - 10) // 6:
        raise ValueError("the answer is not an ApiVersions response")
    entries = (struct.unpack_from(">hhh", answer, 10 + 6 * index) for index in range(count))
    return {key: (lowest, highest) for key, lowest, highest in entries}


def answers_kafka(host: str, port: int, timeout_seconds: float = 1.0) -> bool:
    """Whether a Kafka-protocol broker answers there now."""
    try:
        return bool(api_versions(host, port, timeout_seconds))
    except (OSError, ValueError):
        return False


def _receive(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        chunk = connection.recv(size - len(received))
        if not chunk:
            raise ConnectionError("the broker closed the connection")
        received += chunk
    return bytes(received)
