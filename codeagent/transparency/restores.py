"""Going on after a restore: what was signed that the restored log does not have, and stating that it is given up.

The statement is a line of the log's next checkpoint, and of all after it. So it is signed by the log's key, and one who
has only the database can neither make it nor take it over to a log that was cut at another place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from codeagent.transparency import tables
from codeagent.transparency.checkpoints import Checkpoint, Cut
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.proofs import ProofRejected
from codeagent.transparency.tree import EMPTY_ROOT
from codeagent.transparency.witnesses import Found, Witness, newest_signed


@dataclass(frozen=True, slots=True)
class Shortfall:
    """The log, whose newest checkpoint is `log`, lacks what was signed in `newest`."""

    log: Checkpoint
    newest: Checkpoint

    @property
    def cut(self) -> Cut:
        """What it would take to go on nevertheless. A log from before an earlier restore may have entries that were
        given up with that one: they stay given up."""
        later = self.newest.cuts[len(self.log.cuts) :]
        kept = min((self.log.size, *(cut.kept for cut in later)))
        return Cut(kept, self.newest.size, self.newest.root)

    @property
    def stated(self) -> Checkpoint:
        """The log's newest checkpoint as it would be with that statement."""
        return replace(self.log, cuts=(*self.newest.cuts, self.cut))


def shortfall(log: Checkpoint, kept: Iterable[Checkpoint]) -> Shortfall | None:
    """What a log whose newest checkpoint is `log` lacks of what checkpoints kept elsewhere tell; None where it lacks
    nothing. Raises `ProofRejected` where the newest is of a story that this log is no part of."""
    newest = max(kept, key=lambda each: each.order, default=None)
    if newest is None or newest.order <= log.order:
        return None
    if newest.cuts[: len(log.cuts)] != log.cuts:
        raise ProofRejected("what was signed tells of other restores than the log")
    return Shortfall(log, newest)


async def shortfall_in(queries: tables.Queries, keys: LogKeys, kept: Iterable[Found]) -> Shortfall | None:
    """The same of the log in a database. Raises `ProofRejected` also where its newest checkpoint is not ours."""
    log = await newest_signed(queries, keys)
    if log is None:
        if await tables.newest_checkpoint(queries) is not None:
            raise ProofRejected("the log's newest checkpoint is signed by no key that is known here")
        log = Checkpoint(keys.origin, 0, EMPTY_ROOT)
    return shortfall(log, (each.checkpoint for each in kept if isinstance(each, Witness)))
