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


@dataclass(frozen=True, slots=True)
class Transition:
    """What a breaker has done. `reason` is that of the failure that counted last; empty where there was none."""

    breaker: str
    old: State
    new: State
    reason: str


TransitionListener = Callable[[Transition], None]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a breaker stands: how many seconds ago somebody wanted to call, the provider answered, or a call failed; None
    where that has not been. `reason` is that of the failure that counted last."""

    state: State
    used_ago: float | None
    answered_ago: float | None
    failed_ago: float | None
    reason: str


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
            reason="circuit_open",
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
        self._probing = self._restoring = False
        self._used_at: float | None = None
        self._answered_at: float | None = None
        self._failed_at: float | None = None
        self._reason = ""
        self._listeners = tuple(listeners)
        self._circuit = pybreaker.CircuitBreaker(
            fail_max=failures_to_open, name=name, throw_new_error_on_trip=False, listeners=[_Relay(self._changed)]
        )

    @property
    def state(self) -> State:
        return _state(self._circuit.current_state)

    @property
    def standing(self) -> Standing:
        now = self._monotonic()

        def ago(at: float | None) -> float | None:
            return None if at is None else now - at

        return Standing(self.state, ago(self._used_at), ago(self._answered_at), ago(self._failed_at), self._reason)

    def check(self) -> None:
        """Raises CircuitOpen where `admit` would, and lets nobody in."""
        self._used_at = self._monotonic()
        remaining = self._opened_at + self._open_seconds - self._monotonic()
        if self.state == "open" and remaining > 0:
            raise CircuitOpen(self.name, remaining)
        if self.state == "half-open" and self._probing:
            raise CircuitOpen(self.name, min(self._open_seconds, 1.0))

    def admit(self) -> Admission:
        """Leave to call now. Raises CircuitOpen while open, and beside the one probe while half open."""
        self.check()
        if self.state == "open":
            self._circuit.half_open()
        if self.state == "half-open":
            self._probing = True
            return Admission(self._era, probe=True)
        return Admission(self._era, probe=False)

    def record(self, admission: Admission, outcome: Outcome, reason: str = "") -> None:
        """What became of an admitted call, and why. `neutral` (a cancellation, a rate limit) changes nothing."""
        if admission.era != self._era:
            return
        if admission.probe:
            self._probing = False
        if outcome == "success":
            self._answered_at = self._monotonic()
            self._circuit.call(lambda: None)
        elif outcome == "failure":
            self._failed_at, self._reason = self._monotonic(), reason
            with contextlib.suppress(_Failed):
                self._circuit.call(_fail)

    def restore_open(self, seconds_ago: float) -> None:
        """Continues an open state known from the log, so that a restart does not storm a vendor that is down."""
        if self.state == "closed" and seconds_ago < self._open_seconds:
            self._restore(self._circuit.open)
            self._opened_at = self._monotonic() - max(0.0, seconds_ago)

    def restore_half_open(self) -> None:
        """Continues a half-open state known from the log: one probe goes first. That of whoever was at it then is not
        waited for."""
        if self.state == "closed":
            self._restore(self._circuit.half_open)

    def _restore(self, change: Callable[[], object]) -> None:
        self._restoring = True
        change()
        self._restoring = False

    def _changed(self, old: State, new: State) -> None:
        if new == "open":
            self._opened_at = self._monotonic()
        if new != "half-open":
            # Calls admitted before a trip or a recovery finish late; they say nothing about what is now.
            self._era += 1
            self._probing = False
        if not self._restoring:  # what the log has told is no news
            for listener in self._listeners:
                listener(Transition(self.name, old, new, self._reason))


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
