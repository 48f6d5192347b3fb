"""Removes artifacts that nothing names any more, a bounded piece at a time, while others are stored beside it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence

from codeagent.artifacts.blobs import BlobFiles
from codeagent.artifacts.threads import in_thread

NamedAmong = Callable[[str, Sequence[str]], Awaitable[Collection[str]]]
"""Which of a tenant's digests something names. Everything, where that is not known now."""
Removed = Callable[[int], None]


class ArtifactSweep:
    """Looks at one directory of the store after the other, round and round.

    An artifact goes when nothing names it and nobody has stored it, or asked whether it is there, for `grace_seconds`:
    whoever does so is about to name it. So the grace has to be longer than anything takes to come into the log. Several
    sweeps may run at once.
    """

    def __init__(
        self, files: BlobFiles, named_among: NamedAmong, *, grace_seconds: float, removed: Removed = lambda _: None
    ) -> None:
        self._files = files
        self._named_among = named_among
        self._grace = grace_seconds
        self._removed = removed
        self._shelves: Iterator[tuple[str, str]] | None = None

    async def forget(self, most: int) -> int:
        """Removes at most `most`; returns how many. 0 also where there was nothing to remove among as many."""
        removed = looked_at = 0
        while looked_at < most and removed < most:
            shelf = await in_thread(self._next_shelf)
            if shelf is None:
                break
            latest = time.time() - self._grace
            old = await in_thread(self._files.older_than, *shelf, latest)
            looked_at += 1 + len(old)
            named = await self._named_among(shelf[0], old) if old else ()
            for digest in old:
                if digest not in named:
                    removed += await in_thread(self._files.remove_if_older, shelf[0], digest, latest)
        self._removed(removed)
        return removed

    def _next_shelf(self) -> tuple[str, str] | None:
        """The next directory; None once at the end of each walk."""
        if self._shelves is None:
            self._shelves = self._files.shelves()
        shelf = next(self._shelves, None)
        if shelf is None:
            self._shelves = None
        return shelf
