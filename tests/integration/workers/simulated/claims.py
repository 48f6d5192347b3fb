"""Who holds which effect: a model of the ledger's leases, held against every statement that PostgreSQL has executed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

CLAIMS = ("claim_effects_v3", "claim_due_effects_v1")
RENEW = "SET due_at = clock_timestamp() + $3 FROM held"
RELEASE = "SET token = NULL"
EXPIRE = "owner = NULL, attempt = greatest(attempt - $5, 0), memo = coalesce($3, memo)"
HASTEN = "WITH resting AS"
RECORD = "record_outcomes_v3"
OF_NO_CLAIM = ("commit_steps_v3", "kind IN ('timer', 'child')")
"""What writes effects, and claims none: a step, and the sweep's hand on due timers."""


@dataclass
class _Held:
    token: UUID
    until: float
    recorded: bool = False


@dataclass
class Claims:
    """`accuse` is told of what no schedule may bring about. Times in seconds of the simulated clock."""

    lease_seconds: float
    accuse: Callable[[str], None]
    _held: dict[UUID, _Held] = field(default_factory=dict)

    def executed(self, query: str, arguments: Sequence[Any], rows: Sequence[Any], now: float) -> None:
        """What a statement that writes has answered."""
        if any(name in query for name in CLAIMS):
            for row in rows:
                self._claimed(row["id"], row["token"], now)
        elif RENEW in query:
            tokens = dict(zip(arguments[0], arguments[1], strict=True))
            for row in rows:
                self._renewed(row["id"], tokens[row["id"]], now)
        elif RELEASE in query or EXPIRE in query:
            given = zip(*arguments[:2], strict=True) if RELEASE in query else [arguments[:2]]
            for effect_id, token in given:
                self._given_back(effect_id, token)
        elif HASTEN in query:
            for row in rows:
                self._hastened(row["id"], now)
        elif RECORD in query:
            self._judged(arguments, rows)
        else:
            known = "effects" not in query or any(words in query for words in OF_NO_CLAIM)
            assert known, f"the model of claims does not know what this does to effects: {query}"

    def _judged(self, arguments: Sequence[Any], rows: Sequence[Any]) -> None:
        for row in rows:
            if row["verdict"] == "recorded":
                self._recorded(arguments[0][row["place"] - 1], arguments[1][row["place"] - 1])

    def _claimed(self, effect_id: UUID, token: UUID, now: float) -> None:
        held = self._held.get(effect_id)
        if held is not None and held.recorded:
            self.accuse(f"{effect_id} was claimed although its outcome is recorded")
        elif held is not None and held.until > now:
            self.accuse(f"{effect_id} was claimed {held.until - now:.3f} s before its owner's lease ends")
        self._held[effect_id] = _Held(token, now + self.lease_seconds)

    def _renewed(self, effect_id: UUID, token: UUID, now: float) -> None:
        held = self._held.get(effect_id)
        if held is None or held.token != token:
            self.accuse(f"{effect_id} was renewed under a claim that is lost")
        else:
            held.until = now + self.lease_seconds

    def _given_back(self, effect_id: UUID, token: UUID) -> None:
        held = self._held.get(effect_id)
        if held is not None and held.token == token:
            held.until = 0.0

    def _hastened(self, effect_id: UUID, now: float) -> None:
        held = self._held.get(effect_id)
        if held is not None and held.until > now:
            self.accuse(f"{effect_id} was made due although somebody works on it")

    def _recorded(self, effect_id: UUID, token: UUID) -> None:
        held = self._held.get(effect_id)
        if held is None or held.token != token:
            self.accuse(f"an outcome of {effect_id} was recorded under a claim that is lost")
        else:
            held.recorded = True
