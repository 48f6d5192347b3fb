"""When the system of `up` is ready, as its processes themselves have it."""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable

from codeagent.embedded.processes import ProcessSupervisor
from codeagent.errors import Unavailable

READY_SECONDS = 60.0
MOST_FAILURES = 2


def sandbox_level(monitor: str) -> int:
    """As the sandbox worker's own metrics have it."""
    with urllib.request.urlopen(f"{monitor}/metrics", timeout=5.0) as answer:  # noqa: S310  a URL of our own
        [level] = re.findall(rb"^codeagent_sandbox_level ([\d.]+)$", answer.read(), re.MULTILINE)
    return int(float(level))


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=0.5) as answer:  # noqa: S310  a URL of our own
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


class Announcer:
    """Looks between the supervisor's rounds whether every process is ready, and says so once."""

    def __init__(
        self,
        supervisor: ProcessSupervisor,
        addresses: Iterable[str],
        on_ready: Callable[[], bool],
        until: Callable[[], bool] | None,
    ) -> None:
        self._supervisor = supervisor
        self._waiting = list(addresses)
        self._on_ready = on_ready
        self._until = until
        self._begun = time.monotonic()
        self._announced = False

    def __call__(self) -> bool:
        if not self._announced:
            self._look()
        return self._until() if self._until is not None else False

    def _look(self) -> None:
        give_up_at = time.monotonic() + 0.25
        while self._waiting and time.monotonic() < give_up_at:
            self._waiting = [address for address in self._waiting if not _is_ready(address)]
            if self._waiting:
                time.sleep(0.02)
        if not self._waiting and self._on_ready():
            self._announced = True
        elif (
            time.monotonic() - self._begun > READY_SECONDS or max(self._supervisor.restarts().values()) > MOST_FAILURES
        ):
            raise Unavailable("the system did not become ready: its own messages say why")
