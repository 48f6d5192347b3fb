"""Frames as text, and pages that may connect."""

from __future__ import annotations

import json

import pytest

from codeagent.edge.joined import Frame, Kind, control
from codeagent.edge.websocket.frames import Subscribe, parse, server_frame, stream_frame
from codeagent.edge.websocket.route import may_connect


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (
            Frame(Kind.EVENT, "run.started", '{"data":{"x":"\\""}}', "7"),
            {"type": "event", "subscription": "s", "position": "7", "event": {"data": {"x": '"'}}},
        ),
        (
            Frame(Kind.DELTA, "message.delta", '{"text":"a"}'),
            {"type": "delta", "subscription": "s", "name": "message.delta", "data": {"text": "a"}},
        ),
        (
            control("stream.end", {"reason": "revoked"}),
            {"type": "stream.end", "subscription": "s", "reason": "revoked"},
        ),
    ],
)
def test_a_frame_of_a_subscription_is_one_json_object(frame: Frame, expected: dict[str, object]) -> None:
    assert json.loads(stream_frame("s", frame)) == expected


def test_a_frame_of_the_server_says_its_type_first() -> None:
    assert server_frame("error", code="not_found") == '{"type":"error","code":"not_found"}'


def test_a_subscription_is_named_after_what_it_follows_unless_named() -> None:
    names = [
        frame.name
        for text in (
            '{"type": "subscribe", "run_id": "run_1"}',
            '{"type": "subscribe", "feed": true}',
            '{"type": "subscribe", "feed": true, "subscription": "mine"}',
        )
        if isinstance(frame := parse(text), Subscribe)
    ]
    assert names == ["run_1", "feed", "mine"]


@pytest.mark.parametrize(
    ("origin", "host", "expected"),
    [
        ("http://localhost:8080", "localhost:8080", True),
        ("http://LOCALHOST:8080", "localhost:8080", True),
        ("http://localhost:8081", "localhost:8080", False),
        ("http://localhost", "localhost:8080", False),
        ("file://", "", False),
        ("null", "null", False),
        ("", "", False),
        ("https://a.example", "b.example", True),
        ("https://a.example:444", "b.example", False),
        ("https://a.example/", "b.example", False),
        (None, "b.example", True),
    ],
)
def test_pages_of_our_own_and_of_listed_origins_may_connect(origin: str | None, host: str, expected: bool) -> None:
    assert may_connect(origin, host, ("https://a.example",)) is expected
