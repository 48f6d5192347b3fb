"""What takes too long: a body that trickles, or an answer; not an upload that goes on for long and goes on."""

from __future__ import annotations

import time

import pytest
from starlette.types import Message

from codeagent.edge.traffic.exchange import BODY_BYTES_A_SECOND, Exchange
from codeagent.edge.traffic.policy import TrafficPolicy

POLICY = TrafficPolicy(body_seconds=10.0, request_seconds=20.0)
PIECE: Message = {"type": "http.request", "body": b"x" * BODY_BYTES_A_SECOND * 5, "more_body": True}


@pytest.fixture
def fake_clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    now = [1_000.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def exchange(*pieces: Message) -> Exchange:
    coming = iter(pieces)

    async def receive() -> Message:
        return next(coming)

    async def send(_: Message) -> None:
        pass

    return Exchange({"type": "http"}, receive, send, {}, None, [])


async def test_an_upload_may_take_a_second_longer_for_every_16_kib_of_it(fake_clock: list[float]) -> None:
    made = exchange(PIECE)
    await made.receive()
    made.reading = True
    start = fake_clock[0]
    assert made.late(start + 14.9, POLICY) == ""
    assert made.late(start + 15.1, POLICY) == "body"


async def test_an_upload_that_is_being_stored_is_not_late_for_its_beginning(fake_clock: list[float]) -> None:
    made = exchange(*[PIECE] * 10)
    for _ in range(10):
        fake_clock[0] += 4.0
        await made.receive()
        assert made.late(fake_clock[0] + 1.0, POLICY) == ""
    assert made.late(fake_clock[0] + 20.1, POLICY) == "answer"


async def test_a_stream_is_never_late() -> None:
    made = exchange()
    made.stream_of = "ten_1"
    assert made.late(time.perf_counter() + 1e6, POLICY) == ""
