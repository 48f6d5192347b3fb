"""What the command line does while the server is away or has no room: it comes back, a bounded number of times."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from codeagent.cli import client as module
from codeagent.cli.client import ApiError, Client
from codeagent.cli.connection import Connection

FULL = {"code": "storage_full", "detail": "the artifact storage is full"}


class Edge:
    """An edge that is busy for a while, and keeps the bodies it was sent."""

    def __init__(self) -> None:
        self.busy_for = 0
        self.bodies: list[bytes] = []


@pytest.fixture
def edge(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Edge, Client]]:
    state = Edge()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = self.headers.get("Content-Length")
            state.bodies.append(self.rfile.read(int(length)) if length is not None else self._chunked())
            busy = len(state.bodies) <= state.busy_for
            answer = json.dumps(FULL if busy else {"digest": "sha256:x", "id": "run_x"}).encode()
            self.send_response(503 if busy else 201)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def _chunked(self) -> bytes:
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    client = Client(Connection(f"http://127.0.0.1:{server.server_address[1]}", "cak_test"))
    yield state, client
    client.close()
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_upload_is_sent_again_whole_until_there_is_room(edge: tuple[Edge, Client], tmp_path: Path) -> None:
    state, client = edge
    state.busy_for = 3
    (tmp_path / "archive").write_bytes(b"the archive")
    assert client.upload(tmp_path / "archive") == "sha256:x"
    assert state.bodies == [b"the archive"] * 4


def test_who_stays_busy_is_told_as_such(edge: tuple[Edge, Client], tmp_path: Path) -> None:
    state, client = edge
    state.busy_for = 100
    (tmp_path / "archive").write_bytes(b"the archive")
    for attempt in (lambda: client.upload(tmp_path / "archive"), lambda: client.submit({}, "key")):
        with pytest.raises(ApiError) as caught:
            attempt()
        assert (caught.value.status, caught.value.code) == (503, "storage_full")
    assert len(state.bodies) == 10
