"""A tenant's quota of sandboxes, and what it has used of it today."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from pydantic import Field

from codeagent import clock
from codeagent.messages.conversation import Data

MIB_MS_PER_GIB_HOUR = 1_024 * 3_600_000
"""Memory times time is counted in MiB milliseconds, and told in GiB hours."""


class SandboxQuota(Data):
    """What a tenant may use. A day is one of UTC; what is None is not said."""

    concurrent_sandboxes: int | None = Field(default=None, ge=1, le=100_000)
    """Sandbox operations at once."""
    cpu_seconds_per_day: int | None = Field(default=None, ge=1, le=10**12)
    """CPU time of commands."""
    gib_hours_per_day: Decimal | None = Field(default=None, gt=0, le=1_000_000)
    """Memory limit of commands, times how long they ran."""

    def over(self, less: SandboxQuota) -> SandboxQuota:
        """This quota, and `less`'s where this one says nothing."""
        mine = {name: value for name, value in self if value is not None}
        return SandboxQuota(**{**dict(less), **mine})

    @property
    def bounds_days(self) -> bool:
        return self.cpu_seconds_per_day is not None or self.gib_hours_per_day is not None


@dataclass(frozen=True, slots=True)
class Used:
    """What a tenant's commands have used on a day, as far as the projection of usage has read the log."""

    cpu_seconds: Decimal
    gib_hours: Decimal

    @classmethod
    def of(cls, cpu_ms: int, memory_mib_ms: int) -> Used:
        return cls(Decimal(cpu_ms) / 1_000, Decimal(memory_mib_ms) / MIB_MS_PER_GIB_HOUR)

    def share_of(self, quota: SandboxQuota) -> tuple[str, Decimal]:
        """Which daily quota is used up most, and how much of it: 1 is all. Zero where no day is bounded."""
        shares = {"cpu_seconds_per_day": Decimal(0)}
        if quota.cpu_seconds_per_day is not None:
            shares["cpu_seconds_per_day"] = self.cpu_seconds / quota.cpu_seconds_per_day
        if quota.gib_hours_per_day is not None:
            shares["gib_hours_per_day"] = self.gib_hours / quota.gib_hours_per_day
        return max(shares.items(), key=lambda share: share[1])


def resets_at() -> datetime:
    """When the day ends that it is in UTC."""
    today = clock.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today + timedelta(days=1)


def used_up(name: str) -> str:
    """In words, for people."""
    what = {"cpu_seconds_per_day": "CPU seconds", "gib_hours_per_day": "GiB hours of memory"}[name]
    return f"The tenant has used its {what} for today. They begin anew at {resets_at():%Y-%m-%dT%H:%M:%SZ}."
