"""Failed logins slow down whoever makes them: by account and by client address, on all edges together.

An account that does not exist is counted like one that does. An address from which a user has logged in before has a
count of its own for that account, so that strangers who guess cannot keep its owner out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from codeagent.errors import Rejected
from codeagent.eventlog.database import Database


class Throttled(Rejected):
    """Too many failed logins. `retry_after` is in whole seconds."""

    code: ClassVar[str] = "quota_exceeded"
    status: ClassVar[int] = 429

    def __init__(self, retry_after: float) -> None:
        self.retry_after = max(1, math.ceil(retry_after))
        super().__init__(f"Too many failed logins: try again in {self.retry_after} s.")


@dataclass(frozen=True, slots=True)
class ThrottlePolicy:
    """How many failures are free, and the longest wait after more: 1, 2, 4, ... seconds."""

    account_failures: int = 5
    address_failures: int = 20
    longest: timedelta = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What an attempt counts against, as digests."""

    account: bytes
    address: bytes


class LoginThrottle:
    def __init__(self, database: Database, policy: ThrottlePolicy | None = None) -> None:
        self._database = database
        self._policy = policy or ThrottlePolicy()

    async def begin(self, attempt: Attempt) -> None:
        """Counts it as failed for the time being. Raises `Throttled` for one that comes too soon."""
        keys, free = self._counted(attempt)
        [row] = await self._database.write("SELECT begin_login_v1($1, $2, $3)", keys, free, self._policy.longest)
        if row[0] > 0:
            raise Throttled(row[0])

    def _counted(self, attempt: Attempt) -> tuple[Sequence[bytes], Sequence[int]]:
        policy = self._policy
        return (attempt.account, attempt.address), (policy.account_failures, policy.address_failures)

    async def succeeded(self, attempt: Attempt) -> None:
        """It was not a failure after all."""
        await self._database.write("SELECT end_login_v1($1, $2)", attempt.account, [attempt.address])
