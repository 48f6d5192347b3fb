"""When a delivery that failed is tried again. Pure: clock and chance are given."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

DELAYS = (
    timedelta(0),
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""Before each attempt, counted from the end of the one before: ten attempts in a little over three days."""
JITTER = 0.1
"""A delay is up to this share longer or shorter, so that what failed together does not come back together."""
LONGEST_ASKED = timedelta(hours=24)
"""How long a receiver may ask us to wait (`Retry-After`)."""
LONGEST_LIFE = timedelta(days=4)
"""Of a delivery. Attempts are late where a receiver is slow and much is waiting for it."""


def delay_after(step: int, *, age: timedelta, chance: float, asked: timedelta | None = None) -> timedelta | None:
    """How long to wait after the failure of attempt number `step` (from 1) of a delivery of that age; None when that
    was the last one. `chance` is uniform in [0, 1); `asked` is what the receiver asked for, at least."""
    if step >= len(DELAYS) or age >= LONGEST_LIFE:
        return None
    planned = DELAYS[step] * (1 + JITTER * (2 * chance - 1))
    return planned if asked is None else max(planned, min(asked, LONGEST_ASKED))


def retry_after(header: str, now: datetime) -> timedelta | None:
    """What `Retry-After` asks for, in seconds or as a date (RFC 9110, section 10.2.3); None where it says nothing."""
    text = header.strip()
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return timedelta(seconds=int(text))
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return max(moment - now, timedelta(0))
