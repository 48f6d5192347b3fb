"""How many frames a client may send: a burst, and a rate in the long run."""

from __future__ import annotations

import time

from codeagent.edge.websocket.closing import Closed, Code


class FrameBudget:
    """A bucket of `burst` frames that refills with `per_second`."""

    def __init__(self, burst: int, per_second: float) -> None:
        self._burst = float(burst)
        self._per_second = per_second
        self._left = self._burst
        self._at = time.monotonic()

    def spend(self) -> None:
        """Raises `Closed` when there is nothing left."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            raise Closed(Code.TOO_MANY, "too_many_frames")
        self._left -= 1
