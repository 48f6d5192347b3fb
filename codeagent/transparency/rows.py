"""An event as it is found in the database, whatever was done to it: its leaf, and what is wrong with it by itself."""

from __future__ import annotations

from hashlib import sha256

from codeagent.eventlog.database import Row
from codeagent.eventlog.stored import from_row, leaf_of
from codeagent.eventlog.verify import Problem, problems_of
from codeagent.transparency.tree import HASH_BYTES

CORRUPT = "row_corrupt"


def stored_leaf(row: Row) -> bytes:
    """The leaf hash to seal: as it is stored. What is no hash is hashed, so that nothing is left out."""
    leaf: bytes = row["leaf_hash"] or b""
    return leaf if len(leaf) == HASH_BYTES else sha256(b"\x00" + leaf).digest()


def own_leaf(row: Row) -> bytes | None:
    """The leaf hash that the row's attributes give, None for a corrupt row."""
    event = from_row(row)
    return None if event.damage else leaf_of(event)


def problems_in(row: Row) -> list[tuple[str, str]]:
    """(code, what to say) of each problem."""
    event = from_row(row)
    if event.damage:
        return [(CORRUPT, f"the row holds what no event can: {event.damage}")]
    if len(event.leaf_hash) != HASH_BYTES:
        return [(CORRUPT, "its leaf_hash is none"), *((p.value, t) for p, t in problems_of(event) if p is not _LEAF)]
    return [(problem.value, told) for problem, told in problems_of(event)]


_LEAF = Problem.ATTRIBUTES_CHANGED
