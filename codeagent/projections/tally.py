"""What one event adds to what has been used. Numbers that can be added in any order and grouping."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from decimal import Decimal
from operator import attrgetter

from codeagent.messages import events
from codeagent.messages.calls import CallEnded
from codeagent.messages.conversation import Usage
from codeagent.messages.envelope import Event


@dataclass(slots=True)
class Tally:
    """Sums. `input_tokens` includes what was read from or written to a vendor's cache; `cost_usd` is exact;
    `cached_calls` were answered from the response cache; `unpriced_calls` are requests that used tokens whose price is
    not known, and add nothing to the cost. Commands are what ran in sandboxes: `sandbox_ms` how long, `memory_mib_ms`
    their memory limits times that."""

    calls: int = 0
    cached_calls: int = 0
    unpriced_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    sandbox_ms: int = 0
    commands: int = 0
    cpu_ms: int = 0
    memory_mib_ms: int = 0
    runs_submitted: int = 0
    runs_completed: int = 0
    runs_failed: int = 0
    runs_canceled: int = 0
    runs_rejected: int = 0

    def add(self, other: Tally) -> None:
        # One event adds to few of them, and this is done for every event there is.
        for name, more in zip(COUNTERS, _counts(other), strict=True):
            if more:
                setattr(self, name, getattr(self, name) + more)

    def values(self) -> tuple[int | Decimal, ...]:
        """In the order of `COUNTERS`."""
        return _counts(self)


COUNTERS = tuple(field.name for field in fields(Tally))
"""Columns of the same names are in the tables of usage."""
_counts: Callable[[Tally], tuple[int | Decimal, ...]] = attrgetter(*COUNTERS)

COUNTED = frozenset(
    event.NAME
    for event in (
        events.RunSubmitted,
        events.RunCompleted,
        events.RunFailed,
        events.RunCanceled,
        events.RunRejected,
        CallEnded,
        events.ExecEnded,
    )
)
"""The events that add something."""


def tallies_of(event: Event, model: str) -> Iterator[tuple[str, Tally]]:
    """What an event of `COUNTED` adds, by model; `model` is that of its run. A call counts once, however it ended; what
    its attempts have used counts for the models that were asked: what failed was paid for as well."""
    if not isinstance(event, CallEnded):
        yield model, _tally(event)
    elif event.attempts is None:
        yield event.model, Tally(calls=1)
        yield event.model, _used(event.usage, event.cost_usd)
    else:
        yield event.model, Tally(calls=1, cached_calls=int(bool(event.cached)))
        for attempt in event.attempts:
            yield f"{attempt.provider}/{attempt.model}", _used(attempt.usage, attempt.cost_usd)


def _tally(event: Event) -> Tally:
    match event:
        case events.ExecEnded():
            return _command(event)
        case events.RunSubmitted():
            return Tally(runs_submitted=1)
        case events.RunCompleted():
            return Tally(runs_completed=1)
        case events.RunFailed():
            return Tally(runs_failed=1)
        case events.RunCanceled():
            return Tally(runs_canceled=1)
        case events.RunRejected():
            return Tally(runs_rejected=1)
        case _:
            return Tally()


MEMORY_BEFORE = 1 << 30
"""The memory limit that every command had before facts told it."""


def _command(event: events.ExecEnded) -> Tally:
    # What is no command, reading a file for one, has no time of its own.
    wall_ms = round(event.wall_seconds * 1_000)
    limit = MEMORY_BEFORE if event.memory_limit_bytes is None else event.memory_limit_bytes
    return Tally(
        sandbox_ms=wall_ms,
        commands=int(event.wall_seconds > 0),
        cpu_ms=round(event.cpu_seconds * 1_000),
        memory_mib_ms=(limit >> 20) * wall_ms,
    )


def _used(usage: Usage, cost_usd: Decimal | None) -> Tally:
    return Tally(
        unpriced_calls=int(cost_usd is None and usage.input_tokens + usage.output_tokens > 0),
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cost_usd=cost_usd or Decimal(0),
    )
