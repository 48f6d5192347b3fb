"""For how long an effect rests before it is claimed again, and whether the claim before counts as an attempt."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

LONGEST_BACKOFF_SECONDS = 10.0
SPREAD = 0.1
"""By what part of itself a wait that somebody has asked for is longer, at most: not all come back at one moment."""
LONGEST_REST_SECONDS = 86_400.0
"""Whatever a provider asks: deadlines of runs end before that."""
MOST_REMEMBERED = 100_000


def rest_seconds(error: BaseException, attempt: int, age_seconds: float, *, counted: bool) -> float:
    """Longer with each attempt; where attempts are not counted, with the effect's age. Never sooner than the error's
    `retry_after_seconds` says."""
    backoff = 2.0 ** (attempt - 1) if counted else max(1.0, age_seconds / 4)
    asked = getattr(error, "retry_after_seconds", None) or 0.0
    spread = asked * random.uniform(0, SPREAD)  # noqa: S311  # spreads load, guards nothing
    return min(max(min(backoff, LONGEST_BACKOFF_SECONDS), asked + spread), LONGEST_REST_SECONDS)


class Resting:
    """The runs whose effects this worker has let rest, so that a notice of any other run costs no query."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._until: dict[str, float] = {}

    def add(self, run_id: str, seconds: float) -> None:
        now = self._monotonic()
        if len(self._until) >= MOST_REMEMBERED:
            self._until = {each: until for each, until in self._until.items() if until > now}
        self._until[run_id] = max(now + seconds, self._until.get(run_id, 0.0))

    def __contains__(self, run_id: object) -> bool:
        return self._until.get(str(run_id), 0.0) > self._monotonic()
