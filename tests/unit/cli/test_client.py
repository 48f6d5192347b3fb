"""What the command line does while the server is away or has no room: it comes back, a bounded number of times."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from codeagent.cli.client import ApiError, Client
from codeagent.cli.connection import Connection

FULL = {"code": "storage_full", "detail": "the artifact storage is full"}


class Edge:
    """An edge that refuses for a while, with `refusal` and `retry_after`, and keeps the bodies it was sent.

    `pauses` are those that the client makes, in seconds.
    """

    def __init__(self) -> None:
        self.busy_for = 0
        self.refusal = 503, FULL
        self.retry_after: str | None = None
        self.bodies: list[bytes] = []
        self.pauses: list[float] = []


@pytest.fixture
def edge(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Edge, Client]]:
    state = Edge()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = self.headers.get("Content-Length")
            state.bodies.append(self.rfile.read(int(length)) if length is not None else self._chunked())
            busy = len(state.bodies) <= state.busy_for
            status, body = state.refusal if busy else (201, {"digest": "sha256:x", "id": "run_x"})
            answer = json.dumps(body).encode()
            self.send_response(status)
            if busy and state.retry_after is not None:
                self.send_header("Retry-After", state.retry_after)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_GET(self) -> None:
            self.headers["Content-Length"] = "0"
            self.do_POST()

        def _chunked(self) -> bytes:
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(time, "sleep", state.pauses.append)
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


def test_the_pause_is_as_long_as_the_server_says_and_a_little_longer(edge: tuple[Edge, Client]) -> None:
    state, client = edge
    state.busy_for, state.retry_after = 3, "20"
    state.refusal = 429, {"code": "quota_exceeded", "detail": "Too many."}
    assert client.run("run_x")["id"] == "run_x"
    assert len(state.pauses) == 3
    assert all(20 <= pause <= 25 for pause in state.pauses)
    assert len(set(state.pauses)) > 1, "everybody would come back at once"


def test_without_a_word_from_the_server_pauses_grow(edge: tuple[Edge, Client]) -> None:
    state, client = edge
    state.busy_for = 4
    client.cancel("run_x")
    assert all(least <= pause <= least * 1.25 for least, pause in zip((0.5, 1, 2, 4), state.pauses, strict=True))


def test_a_date_is_understood_as_well(edge: tuple[Edge, Client]) -> None:
    state, client = edge
    state.busy_for, state.retry_after = 1, format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    client.run("run_x")
    assert 25 <= state.pauses[0] <= 40


@pytest.mark.parametrize("nonsense", ["soon", "-5", "1e9", ""])
def test_nonsense_is_no_word_from_the_server(edge: tuple[Edge, Client], nonsense: str) -> None:
    state, client = edge
    state.busy_for, state.retry_after = 1, nonsense
    client.run("run_x")
    assert 0.5 <= state.pauses[0] <= 0.625


def test_who_would_have_to_wait_for_long_is_told_at_once(edge: tuple[Edge, Client]) -> None:
    state, client = edge
    state.busy_for, state.retry_after = 100, "3600"
    state.refusal = 429, {"code": "quota_exceeded", "detail": "Too many."}
    for attempt in (lambda: client.submit({}, "key"), lambda: list(client.follow("run_x"))):
        with pytest.raises(ApiError, match=r"quota_exceeded, again in 3600 s"):
            attempt()
    assert (len(state.bodies), state.pauses) == (2, [])


def test_what_is_wrong_with_a_field_is_said_once(edge: tuple[Edge, Client]) -> None:
    state, client = edge
    state.busy_for = 100
    for detail, told in (("No such model.", "No such model. /model"), ("It does not fit.", "/model: No such model.")):
        wrong = {"pointer": "/model", "detail": "No such model."}
        state.refusal = 422, {"code": "unsupported_model", "detail": detail, "errors": [wrong]}
        with pytest.raises(ApiError) as caught:
            client.submit({}, "key")
        assert told in str(caught.value)
        assert str(caught.value).count("No such model.") == 1


@pytest.mark.parametrize(("code", "attempts"), [("idempotency_in_progress", 2), ("invalid_state_transition", 1)])
def test_a_conflict_is_asked_about_again_if_it_may_pass(edge: tuple[Edge, Client], code: str, attempts: int) -> None:
    state, client = edge
    state.busy_for = 1
    state.refusal = 409, {"code": code, "detail": "A conflict."}
    try:
        client.cancel("run_x")
    except ApiError as error:
        assert error.code == code
    assert len(state.bodies) == attempts
