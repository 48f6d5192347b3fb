"""What clients may ask of one edge: rates, numbers at once, and times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from limits import parse


class RateClass(StrEnum):
    """Routes that share a rate: runs are dear, changes cost a commit, reading is cheap."""

    SUBMIT = "submit"
    WRITE = "write"
    READ = "read"


_READS = frozenset({"GET", "HEAD", "OPTIONS"})


def class_of(method: str, path: str) -> RateClass:
    """The class of a request."""
    if method in _READS:
        return RateClass.READ
    return RateClass.SUBMIT if path == "/v1/runs" or path.endswith("/replays") else RateClass.WRITE


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `requests` in any `seconds`."""

    requests: int
    seconds: int

    @classmethod
    def of(cls, text: str) -> Rate:
        """Such as `600/minute`. Raises `ValueError` for what is none."""
        item = parse(text)
        return cls(item.amount, item.get_expiry())


def _default_rates() -> Mapping[RateClass, Rate]:
    return {RateClass.SUBMIT: Rate(600, 60), RateClass.WRITE: Rate(1_200, 60), RateClass.READ: Rate(12_000, 60)}


@dataclass(frozen=True, slots=True)
class TrafficPolicy:
    """Numbers are those of one process, rates of all that share a Valkey."""

    rates: Mapping[RateClass, Rate] = field(default_factory=_default_rates)
    """Of one credential."""
    tenant_factor: int = 5
    """A tenant has this many times the rate of one credential."""
    anonymous: Rate = Rate(300, 60)
    """Of one client address without a valid credential."""
    in_flight: int = 400
    """Requests at once, streams and waits left out; beyond it requests are shed."""
    tenant_in_flight: int = 300
    streams: int = 5_000
    """Open streams and waiting requests."""
    tenant_streams: int = 1_000
    loop_lag_seconds: float = 1.0
    """Requests are shed while the event loop is later than this."""
    body_seconds: float = 30.0
    """Within which a body has to come, with a second more for every `BODY_BYTES_A_SECOND` of it."""
    request_seconds: float = 90.0
    """Within which a request has to be answered, and every next piece of a long answer to be taken."""
