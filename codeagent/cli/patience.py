"""When to ask a server again that had no room, or no answer: when it says, if that is soon, and a few times only.

For requests alone that may be repeated.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2

PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds before each further attempt, where the server does not say."""
LONGEST_PAUSE_SECONDS = 60.0
"""Who is to come back later than this is told so instead of kept waiting."""
JITTER = 0.25
"""Everybody waits up to this part longer, so that not all come back at the same moment."""


def has_no_room(answer: httpx2.Response) -> bool:
    """Whether the same request may be answered otherwise before long."""
    if answer.status_code == 409:
        return b'"idempotency_in_progress"' in answer.content
    return answer.status_code in {429, 503}


def retry_after(answer: httpx2.Response) -> float | None:
    """Seconds, as `Retry-After` tells them in either form (RFC 9110, section 10.2.3); None where it does not."""
    told = answer.headers.get("retry-after", "").strip()
    if told.isascii() and told.isdecimal():
        return float(told)
    try:
        moment = parsedate_to_datetime(told)
    except ValueError:
        return None
    return max(0.0, (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def jittered(seconds: float) -> float:
    """Never sooner."""
    return seconds * (1 + JITTER * random.random())  # noqa: S311  not for secrets


def patiently(send: Callable[[], httpx2.Response]) -> httpx2.Response:
    """The answer to a request that may be repeated. Raises `TransportError` where there is none at last."""
    for usual in PAUSES:
        try:
            answer = send()
        except httpx2.TransportError:
            pause = usual
        else:
            if not has_no_room(answer):
                return answer
            pause = max(usual, retry_after(answer) or 0.0)
            if pause > LONGEST_PAUSE_SECONDS:
                return answer
        time.sleep(jittered(pause))
    return send()
