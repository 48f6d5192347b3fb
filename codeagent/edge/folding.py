"""By which code runs are folded, and how much of a fold is passed on."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path

from codeagent import __version__
from codeagent.projections import view as folding

MOST_BYTES = 256 << 10


@cache
def folded_by() -> str:
    """Names the code that folds: what another release has folded is no use to this one, nor the reverse."""
    code = Path(folding.__file__).read_bytes()
    return f"{__version__}-{sha256(code).hexdigest()[:12]}"
