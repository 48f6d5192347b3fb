"""What commands that have not been counted yet may use of their tenant's day, so that many at once do not pass it.

A command is let begin while what is counted, and what is reserved, leave anything; it then reserves all that its limits
let it use. The reservation goes in the transaction of the projection that counts the command, so at every moment each
command is one or the other. A tenant's day is so passed by less than what one command may use, however many race.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from uuid import UUID

from codeagent.eventlog.database import Database
from codeagent.quotas.quota import SandboxQuota, used_up
from codeagent.sandboxes.protocol import Limits, SandboxFailure
from codeagent.telemetry import metrics

KEPT_LONGER = timedelta(hours=1)
"""How long a reservation outlives its command's time limit, should nothing be recorded of it or nobody count it."""
MOST_REMEMBERED = 100_000


@dataclass(frozen=True, slots=True)
class Worst:
    """The most that a command may use by its limits."""

    wall_seconds: int
    cpu_cores: float
    memory_bytes: int

    @classmethod
    def of(cls, limits: Limits) -> Worst:
        return cls(ceil(limits.wall_seconds), limits.cpu_cores, limits.memory_bytes)

    @property
    def cpu_ms(self) -> int:
        return round(self.wall_seconds * self.cpu_cores * 1_000)

    @property
    def memory_mib_ms(self) -> int:
        return (self.memory_bytes >> 20) * self.wall_seconds * 1_000


class Reservations:
    """`database` sees all tenants. That a tenant has no daily quota is remembered for `remembered_seconds`, and its
    commands then cost no query."""

    def __init__(self, database: Database, defaults: SandboxQuota, *, remembered_seconds: float = 5.0) -> None:
        self._database = database
        self._defaults = defaults
        self._remembered = remembered_seconds
        self._unbounded: dict[str, float] = {}

    async def reserve(self, tenant_id: str, effect_id: UUID, worst: Worst) -> None:
        """Once for each effect, however often it is claimed. Raises `SandboxFailure` (`quota_exceeded`)."""
        now = time.monotonic()
        if self._unbounded.get(tenant_id, 0.0) > now:
            return
        [[verdict]] = await self._database.write(
            "SELECT reserve_sandbox_v1($1, $2, $3, $4, $5, $6, $7)",
            effect_id,
            tenant_id,
            worst.cpu_ms,
            worst.memory_mib_ms,
            timedelta(seconds=worst.wall_seconds) + KEPT_LONGER,
            self._defaults.cpu_seconds_per_day,
            self._defaults.gib_hours_per_day,
        )
        if verdict == "unbounded":
            if len(self._unbounded) >= MOST_REMEMBERED:
                self._unbounded.clear()
            self._unbounded[tenant_id] = now + self._remembered
        elif verdict != "reserved":
            metrics.SANDBOX_QUOTA_REFUSALS.labels(verdict, "command").inc()
            raise SandboxFailure(used_up(verdict), reason="quota_exceeded", retryable=False)


async def forget_reservations(database: Database, most: int) -> int:
    """Removes at most `most` that count no longer; returns how many."""
    rows = await database.write(
        """DELETE FROM sandbox_reservations WHERE effect_id IN (
               SELECT effect_id FROM sandbox_reservations WHERE expires_at < clock_timestamp() LIMIT $1
               FOR UPDATE SKIP LOCKED)
           RETURNING effect_id""",
        most,
    )
    return len(rows)
