"""Providers that nobody calls are looked at, over real HTTP: where nothing is known of them, or they were given up."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from codeagent.providers.breaker import Breaker, CircuitOpen
from codeagent.providers.probe import Prober
from codeagent.providers.registry import ProviderSettings


@dataclass
class Server:
    """Answers every request with `status`, and keeps what it was shown."""

    status: int = 401
    is_endless: bool = False
    url: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(state.status)
            self.send_header("Content-Length", "1000000000" if state.is_endless else "0")
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                while state.is_endless:
                    self.wfile.write(b" " * 1_000)
                    time.sleep(0.02)

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{listening.server_port}/v1"
    yield state
    listening.shutdown()
    listening.server_close()
    thread.join(5)


class Subject:
    def __init__(self, url: str) -> None:
        self.now = 100.0
        self.breaker = Breaker("acme", failures_to_open=2, monotonic=lambda: self.now)
        settings = ProviderSettings(name="acme", kind="openai", base_url=url, api_key="sk-never-shown-to-a-probe")
        self.prober = Prober(settings, self.breaker, idle_seconds=30.0, timeout_seconds=2.0)

    def fail(self) -> None:
        for _ in range(2):
            self.breaker.record(self.breaker.admit(), "failure", "timeout")


async def test_one_that_nothing_is_known_of_is_asked_once_and_shown_no_key(server: Server) -> None:
    subject = Subject(server.url)
    for _ in range(3):
        await subject.prober.look()
        subject.now += 60
    assert server.asked == [("/v1/models", None)]
    assert subject.breaker.standing.answered_ago is not None


async def test_one_that_was_given_up_is_taken_up_again_without_a_call_of_a_run(server: Server) -> None:
    subject = Subject(server.url)
    subject.fail()
    await subject.prober.look()
    assert server.asked == [], "its pause is not over"
    subject.now += 30
    server.status = 503
    await subject.prober.look()
    assert (subject.breaker.state, len(server.asked)) == ("open", 1)
    subject.now += 30
    server.status = 200
    await subject.prober.look()
    assert subject.breaker.state == "closed"


async def test_one_that_runs_call_is_left_to_them(server: Server) -> None:
    subject = Subject(server.url)
    subject.fail()
    subject.now += 25
    with pytest.raises(CircuitOpen):
        subject.breaker.admit()
    subject.now += 10
    await subject.prober.look()
    assert server.asked == [], "the next call, which is not far, tries it"


async def test_one_whose_body_has_no_end_has_answered_with_its_status(server: Server) -> None:
    server.is_endless = True
    subject = Subject(server.url)
    async with asyncio.timeout(10):
        await subject.prober.look()
    assert (len(server.asked), subject.breaker.state) == (1, "closed")
    assert subject.breaker.standing.answered_ago is not None


async def test_a_server_that_is_not_there_has_failed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    subject = Subject(url)
    await subject.prober.look()
    assert subject.breaker.standing.reason == "connection"
