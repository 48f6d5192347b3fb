"""How long the broker may hold a fetch back: a moment while records come, longer while none do.

For a broker that answers no earlier when a record arrives, as the embedded one: there the wait is latency, and short
waits are processor time spent on nothing. Apache Kafka answers at once, so its long wait is never changed.
"""

from __future__ import annotations

import time

from aiokafka import AIOKafkaConsumer

PROMPT_BROKER_MS = 100
"""Waits from here on are for brokers that answer as soon as a record is there."""

BUSY_SECONDS = 1.0
IDLE_FACTOR = 10


class FetchPace:
    """Tells a consumer what to ask for next. `wait_ms` is the wait while records come."""

    def __init__(self, wait_ms: int) -> None:
        self._busy_ms = wait_ms
        self._idle_ms = wait_ms * IDLE_FACTOR if wait_ms < PROMPT_BROKER_MS else wait_ms
        self._busy_until = 0.0

    def note(self, consumer: AIOKafkaConsumer, records: int) -> None:
        """After each look for records: how many there were."""
        now = time.monotonic()
        if records:
            self._busy_until = now + BUSY_SECONDS
        wanted = self._busy_ms if now < self._busy_until else self._idle_ms
        # aiokafka reads it anew for every fetch, but has no public way to change it.
        consumer._fetcher._fetch_max_wait_ms = wanted
