"""Recorded runs that guard `decide`: what was decided once is decided again, from the same messages.

`recordings/NAME.jsonl` has the events of one run, one a line, as the HTTP API gives them. Workers in one process on a
real PostgreSQL have made them, with time that stands still: `make golden` makes them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson

from codeagent.messages.catalog import decode_structured
from codeagent.messages.envelope import Message

RECORDINGS = Path(__file__).parent / "recordings"
NAMES = tuple(sorted(path.stem for path in RECORDINGS.glob("*.jsonl")))


def recording(name: str) -> Sequence[Message]:
    """A recorded run's stream."""
    lines = (RECORDINGS / f"{name}.jsonl").read_bytes().splitlines()
    return [decode_structured(orjson.loads(line)) for line in lines]
