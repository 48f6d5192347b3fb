"""What a model server answers, in no vendor's words: replies in order or by turn, and the faults it injects."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

FaultKind = Literal[
    "status",  # an error status with the vendor's error body
    "hang_before",  # accepts the request and never answers
    "hang_after_headers",  # sends status and headers, then nothing
    "hang_mid",  # stops sending in the middle of the answer, connection open
    "cut_mid",  # drops the connection in the middle of the answer
    "end_early",  # ends the stream politely before the answer is whole
    "keepalive",  # sends keep-alive comments or pings for ever, never an answer
    "malformed",  # an event that is not JSON
    "error_body",  # status 200 and an error document
    "error_event",  # status 200, then an error event inside the stream
    "html",  # status 200 and a web page
    "flood",  # an answer that never stops
    "endless_error",  # an error status and a body that never stops
    "empty",  # status 200 and not one byte
    "endless_line",  # status 200 and one event that never stops
    "unknown_event",  # an event of a kind that nobody knows, and then the rest of the answer
    "wrong_shape",  # JSON, and none that the vendor's documentation knows
    "compressed",  # status 200 and few bytes that stand for many, as nobody asked for
]
Finish = Literal["stop", "tool_calls", "length", "content_filter", "unknown"]

SECRET_TEXT = "internal-host-17 refused user alice@example.test"
"""Put in every error body: no part of it may reach a user."""
SIGNATURE = "c2lnbmVkLWJ5LXRoZS12ZW5kb3I="
"""What vendors add to what their models thought, to know it again."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call. `arguments` is sent exactly as written, so that it may be malformed; an empty `id` is left out."""

    name: str
    arguments: str = "{}"
    id: str = "call_1"


@dataclass(frozen=True, slots=True)
class Fault:
    kind: FaultKind
    status: int = 500
    code: str | None = None
    """The vendor's own error code or type; the usual one of the status when None."""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. `finish` None means the natural one: tool_calls when there are calls, else stop.

    `input_tokens` include those of the cache, `output_tokens` those of the reasoning.
    """

    reasoning: str = ""
    text: str = ""
    calls: tuple[Call, ...] = ()
    finish: Finish | None = None
    input_tokens: int = 11
    output_tokens: int = 7
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    report_usage: bool = True
    fault: Fault | None = None
    delay_seconds: float = 0.0
    chunk_delay_seconds: float = 0.0

    @property
    def finish_reason(self) -> Finish:
        return self.finish or ("tool_calls" if self.calls else "stop")


@dataclass(slots=True)
class Script:
    """Replies served in order of arrival, or by the turn of the conversation that asks.

    By turn, a request with k assistant messages gets reply k, so that any number of conversations can follow the same
    script at once. Past the end the last reply is repeated.
    """

    replies: list[Reply] = field(default_factory=lambda: [Reply(text="Hello.")])
    mode: Literal["order", "turn"] = "order"
    served: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, assistant_messages: int) -> tuple[int, Reply]:
        """The reply and its number, which tells ids apart."""
        with self._lock:
            turn = assistant_messages if self.mode == "turn" else self.served
            self.served += 1
            return turn, self.replies[min(turn, len(self.replies) - 1)]

    def load(self, *replies: Reply) -> None:
        with self._lock:
            self.replies, self.served = list(replies), 0


def read_script(path: Path) -> Script:
    """Reads `{"mode": "turn", "replies": [{"text": ..., "tool_calls": [{"name": ..., "arguments": {...}}]}]}`."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return Script([_reply(item, turn) for turn, item in enumerate(document["replies"])], document.get("mode", "turn"))


def _reply(item: dict[str, Any], turn: int) -> Reply:
    calls = tuple(
        Call(
            name=call["name"],
            arguments=arguments if isinstance(arguments := call.get("arguments", {}), str) else json.dumps(arguments),
            id=call.get("id", f"call_{turn}_{number}"),
        )
        for number, call in enumerate(item.get("tool_calls", ()))
    )
    fault = item.get("fault")
    plain = {key: value for key, value in item.items() if key not in {"tool_calls", "fault"}}
    return Reply(calls=calls, fault=_fault(fault) if fault else None, **plain)


def _fault(item: dict[str, Any]) -> Fault:
    return Fault(
        kind=item["kind"],
        status=item.get("status", 500),
        code=item.get("code"),
        headers=tuple((str(name), str(value)) for name, value in item.get("headers", {}).items()),
    )


def pieces(text: str, count: int = 4) -> list[str]:
    """`text` in about `count` parts, as a stream would bring it."""
    size = max(1, -(-len(text) // count))
    return [text[start : start + size] for start in range(0, len(text), size)]
