"""Events of runs sent once more, to a topic of their own: for a consumer that is new, or has lost what it had."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from codeagent.broker.publisher import Publisher
from codeagent.errors import Unreadable
from codeagent.eventlog.log import Cursor, EventLog, cursor_of
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.unreadable import name_unreadable
from codeagent.messages.envelope import Headers, to_headers

PAGE = 500


@dataclass(frozen=True, slots=True)
class Range:
    """What comes after one place in the log, up to and with another; all there is now, where that is None."""

    after: Cursor = field(default_factory=Cursor)
    until: Cursor | None = None


class Republisher:
    """Reads the log and writes to a topic. Nothing is remembered: who is interrupted goes on from the place that
    `told` was called with last, and sends what was under way a second time, which consumers recognise by the event's
    id."""

    def __init__(self, log_reader: EventLog, publisher: Publisher) -> None:
        self._log = log_reader
        self._publisher = publisher

    async def republish(self, wanted: Range, topic: str, told: Callable[[Cursor, int], object]) -> int:
        """Sends the events of runs as `codeagent.run.events.v1` had them, those of each run in order; returns how many.
        Calls `told` with the place and the number so far after every page. Raises `Unavailable`, `OutcomeUnknown`."""
        place, sent = wanted.after, 0
        # Fixed now: a log that grows as fast as it is read would have no end.
        until = await self._log.settled() if wanted.until is None else wanted.until
        while place < until:
            page = [event for event in await self._log.read_category("run", place, PAGE) if cursor_of(event) <= until]
            if not page:
                return sent
            sent += await self._send(topic, page)
            place = cursor_of(page[-1])
            told(place, sent)
        return sent

    async def _send(self, topic: str, page: Sequence[StoredEvent]) -> int:
        by_run: dict[str, list[tuple[Headers, bytes]]] = {}
        for event in page:
            try:
                envelope = event.envelope()
            except Unreadable as error:
                name_unreadable(event, "republish", error)
                continue
            by_run.setdefault(envelope.key, []).append((to_headers(envelope), event.data))
        await asyncio.gather(*(self._publisher.send_all(topic, key, records) for key, records in by_run.items()))
        return sum(map(len, by_run.values()))
