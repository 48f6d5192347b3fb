"""What a projection is: rows kept from the log, and nothing that the log does not say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from codeagent.eventlog.follower import LogFollower


@dataclass(frozen=True, slots=True)
class Sums:
    """Of rows that add up others: two queries with the id of a run, `$1`, that bring the same where they do. `made`
    adds up the rows that the sums are of, `found` reads the sums. Both read the real tables, as `public.`."""

    made: str
    found: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A table `t` of a projection, and the columns that tell its rows apart. `sample` is the condition for those of
    them that come from one run, of which `s` has the id, `run`, and the ids of its `events`; None where rows add up
    many runs, which `sums` holds against the rows of these. Rows that are `shared` come from other runs as well: it is
    known which must be there, and no more. Others are not compared at all but those of which `stands` is true: the log
    may have lost what they were made of."""

    table: str
    key: tuple[str, ...]
    sample: str | None = "t.run_id = s.run"
    shared: bool = False
    stands: str = "true"
    sums: Sums | None = None


class Projection(LogFollower):
    """A follower of the log whose rows are a function of the events up to its place: nobody else writes to the tables
    of `KEEPS`, so that they can be made anew. Into those of `BESIDE` it writes too, as others do."""

    KEEPS: ClassVar[tuple[Kept, ...]]
    BESIDE: ClassVar[tuple[str, ...]] = ()
