"""A circuit breaker for async calls: pybreaker keeps state and counters, this keeps the event loop's rules.

pybreaker's own wrappers do not fit coroutines: they let every call through when half open and take a cancellation
for a failure. So a call runs outside it, and only its outcome is told.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import pybreaker

from codeagent.providers.protocol import ProviderError

State = Literal["closed", "open", "half-open"]
Outcome = Literal["success", "failure", "neutral"]
TransitionListener = Callable[[str, State, State], None]
"""Told the breaker's name, the old state and the new one."""

# What says nothing about the vendor's health: the request or the key was bad, and the vendor said so in good order.
_ANSWERED = frozenset(
    {"authentication", "permission", "not_found", "context_overflow", "invalid_request", "content_filtered"}
)
# A limit is about one key at one moment: it neither proves the vendor well nor ill.
_NEUTRAL = frozenset({"rate_limited"})


class CircuitOpen(ProviderError):
    """The call was not made: the vendor failed too often a moment ago."""

    def __init__(self, provider: str, seconds: float) -> None:
        super().__init__(
            f"The model provider {provider!r} failed repeatedly and is not called for {seconds:.0f} s.",
            reason="overloaded",
            retryable=True,
            retry_after_seconds=seconds,
        )


@dataclass(frozen=True, slots=True)
class Admission:
    """Leave to make one call. Its outcome counts only while the era in which it was given lasts."""

    era: int
    probe: bool


class Breaker:
    """One for each provider in a process. Not thread-safe: everything happens on one event loop."""

    def __init__(
        self,
        name: str,
        *,
        failures_to_open: int = 5,
        open_seconds: float = 30.0,
        listeners: Sequence[TransitionListener] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._open_seconds = open_seconds
        self._monotonic = monotonic
        self._opened_at = monotonic()
        self._era = 0
        self._probing = False
        self._listeners = tuple(listeners)
        self._circuit = pybreaker.CircuitBreaker(
            fail_max=failures_to_open, name=name, throw_new_error_on_trip=False, listeners=[_Relay(self._changed)]
        )

    @property
    def state(self) -> State:
        return _state(self._circuit.current_state)

    def admit(self) -> Admission:
        """Leave to call now. Raises CircuitOpen while open, and beside the one probe while half open."""
        if self.state == "open":
            remaining = self._opened_at + self._open_seconds - self._monotonic()
            if remaining > 0:
                raise CircuitOpen(self.name, remaining)
            self._circuit.half_open()
        if self.state == "half-open":
            if self._probing:
                raise CircuitOpen(self.name, min(self._open_seconds, 1.0))
            self._probing = True
            return Admission(self._era, probe=True)
        return Admission(self._era, probe=False)

    def record(self, admission: Admission, outcome: Outcome) -> None:
        """What became of an admitted call. `neutral` (a cancellation, a rate limit) changes nothing."""
        if admission.era != self._era:
            return
        if admission.probe:
            self._probing = False
        if outcome == "success":
            self._circuit.call(lambda: None)
        elif outcome == "failure":
            with contextlib.suppress(_Failed):
                self._circuit.call(_fail)

    def restore_open(self, seconds_ago: float) -> None:
        """Continues an open state known from the log, so that a restart does not storm a vendor that is down."""
        if self.state == "closed" and seconds_ago < self._open_seconds:
            self._circuit.open()
            self._opened_at = self._monotonic() - max(0.0, seconds_ago)

    def _changed(self, old: State, new: State) -> None:
        if new == "open":
            self._opened_at = self._monotonic()
        if new != "half-open":
            # Calls admitted before a trip or a recovery finish late; they say nothing about what is now.
            self._era += 1
            self._probing = False
        for listener in self._listeners:
            listener(self.name, old, new)


def outcome_of(error: ProviderError) -> Outcome:
    """What an error says about the vendor's health."""
    if error.reason in _NEUTRAL:
        return "neutral"
    return "success" if error.reason in _ANSWERED else "failure"


class _Failed(Exception):
    """Stands for a call that failed, inside pybreaker."""


def _fail() -> None:
    raise _Failed


class _Relay(pybreaker.CircuitBreakerListener):
    def __init__(self, changed: Callable[[State, State], None]) -> None:
        self._changed = changed

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        self._changed(_state(old_state.name if old_state else "closed"), _state(new_state.name))


def _state(name: str) -> State:
    if name == pybreaker.STATE_OPEN:
        return "open"
    return "half-open" if name == pybreaker.STATE_HALF_OPEN else "closed"
