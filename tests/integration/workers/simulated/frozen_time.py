"""Time that passes only when told to: for the event loop, for `clock.now` and for PostgreSQL's `clock_timestamp`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg

EPOCH = datetime(2031, 1, 1, tzinfo=UTC)

# Found before pg_catalog's own, also by the product's functions, which resolve names when they run. Each reading is a
# microsecond later than the one before, so that nothing is due at the same instant by accident.
_CLOCK = """
CREATE SCHEMA simulated;
CREATE TABLE simulated.clock (at timestamptz NOT NULL);
CREATE SEQUENCE simulated.reading;
INSERT INTO simulated.clock VALUES ('2031-01-01 00:00:00+00');
CREATE FUNCTION simulated.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    $$ SELECT at + nextval('simulated.reading') * interval '1 microsecond' FROM simulated.clock $$;
"""


class FrozenLoop(asyncio.SelectorEventLoop):
    """Its timers fire when `advance` has passed them. Sockets work as ever."""

    def __init__(self) -> None:
        super().__init__()
        self._seconds = 0.0
        self._timers = 0

    def time(self) -> float:
        return self._seconds

    def call_at(self, when: float, *arguments: Any, **options: Any) -> asyncio.TimerHandle:
        # Timers of one instant fire in the order in which they were set, which a heap alone does not promise.
        self._timers += 1
        return super().call_at(when + self._timers * 2.0**-30, *arguments, **options)

    def advance(self, seconds: float) -> None:
        self._seconds += seconds

    def has_work(self) -> bool:
        """Whether a callback waits to run, apart from the caller."""
        return bool(self._ready)  # type: ignore[attr-defined]  # the loop's own queue


async def settled() -> None:
    """Returns when every task waits for the schedule or for time."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FrozenLoop)
    await asyncio.sleep(0)
    while loop.has_work():
        await asyncio.sleep(0)


def now() -> datetime:
    """What `codeagent.clock.now` is replaced with."""
    return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())


class Ids:
    """What `codeagent.clock.new_uuid` is replaced with: the same ids in every repetition of a schedule."""

    def __init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        self._numbers = count(1)

    def __call__(self) -> UUID:
        return UUID(int=next(self._numbers))


async def freeze_database(url: str) -> None:
    """Connections opened after this one see the simulated clock."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_CLOCK)
        name = urlsplit(url).path.lstrip("/")
        await connection.execute(f'ALTER DATABASE "{name}" SET search_path = simulated, pg_catalog, public')
    finally:
        await connection.close()
