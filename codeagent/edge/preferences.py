"""What a client would rather have (RFC 7240): to wait for the end of a run, or to be sent no body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LONGEST_WAIT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Preferences:
    """`wait_seconds` 0: do not wait. What is not understood is ignored, as the standard asks."""

    wait_seconds: int = 0
    minimal: bool = False
    respond_async: bool = False

    def applied(self) -> str:
        """As `Preference-Applied` tells it."""
        named = {
            "respond-async": self.respond_async,
            f"wait={self.wait_seconds}": self.wait_seconds > 0,
            "return=minimal": self.minimal,
        }
        return ", ".join(name for name, holds in named.items() if holds)


NONE = Preferences()


def parse(headers: Sequence[str]) -> Preferences:
    """Of the same preference twice the first counts. Longer waits than the longest are the longest."""
    if not headers:
        return NONE
    found: dict[str, str] = {}
    for item in ",".join(headers).split(","):
        name, _, value = item.partition(";")[0].partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    wait = found.get("wait", "")
    seconds = int(wait) if wait.isdecimal() and wait.isascii() and len(wait) < 10 else 0
    return Preferences(
        wait_seconds=min(seconds, LONGEST_WAIT_SECONDS),
        minimal=found.get("return") == "minimal",
        respond_async="respond-async" in found,
    )
