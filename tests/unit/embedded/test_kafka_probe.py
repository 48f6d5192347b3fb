"""The probe believes nothing but a Kafka answer."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from codeagent.embedded.kafka_probe import answers_kafka, api_versions
from codeagent.embedded.ports import free_port

Answer = Callable[[bytes], bytes | None]


def _frame(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def _versions(correlation_id: int = 1, error: int = 0, count: int | None = None) -> bytes:
    entries = [(0, 3, 9), (18, 0, 4)]
    body = struct.pack(">ihi", correlation_id, error, len(entries) if count is None else count)
    return body + b"".join(struct.pack(">hhh", *entry) for entry in entries)


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], int]]:
    """Starts a server that gives one answer a connection; None closes it without a word."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(answer: Answer) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                reply = answer(connection.recv(4096))
                if reply is not None:
                    connection.sendall(reply)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return int(listener.getsockname()[1])

    yield start
    for thread in threads:
        thread.join(5)
    for listener in listeners:
        listener.close()


def test_the_versions_a_broker_takes_are_read(serve: Callable[[Answer], int]) -> None:
    seen: list[bytes] = []

    def answer(request: bytes) -> bytes:
        seen.append(request)
        return _frame(_versions())

    assert api_versions("127.0.0.1", serve(answer), 2.0) == {0: (3, 9), 18: (0, 4)}
    size, key, version = struct.unpack_from(">ihh", seen[0])
    assert (size, key, version) == (len(seen[0]) - 4, 18, 0)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n" + b" " * 100,
        _frame(_versions(correlation_id=7)),
        _frame(_versions(error=35)),
        _frame(_versions(count=1_000_000)),
        _frame(_versions(count=-1)),
        _frame(b"short"),
        _frame(_versions())[:-3],
        None,
    ],
    ids=["http", "other-request", "error", "count-too-large", "count-negative", "short", "cut-off", "silence"],
)
def test_anything_else_is_no_broker(serve: Callable[[Answer], int], reply: bytes | None) -> None:
    assert not answers_kafka("127.0.0.1", serve(lambda _request: reply), 2.0)


def test_nobody_listening_is_no_broker() -> None:
    assert not answers_kafka("127.0.0.1", free_port(), 0.5)
