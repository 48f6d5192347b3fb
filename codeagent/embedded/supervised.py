"""What a supervisor looks after: services it forks, servers it is handed, and when to try a failed one again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from codeagent.embedded.demotion import Demotion
from codeagent.embedded.spawning import Abort

_FIRST_DELAY_SECONDS = 0.2
_LONGEST_DELAY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A Python service: `target` runs it to its end and returns an exit code. Lower stages are stopped first.

    With a `demotion`, a supervisor that is root runs it as somebody else.
    """

    name: str
    target: Callable[[], int | None]
    stop_stage: int = 0
    demotion: Demotion | None = None


class Server(Protocol):
    """A bundled server program, such as PostgreSQL or the broker."""

    @property
    def log_path(self) -> Path: ...
    @property
    def pid(self) -> int | None: ...
    def fault(self) -> str | None: ...
    def restart(self, abort: Abort) -> None: ...
    def stop(self, timeout_seconds: float) -> bool: ...


@dataclass(frozen=True, slots=True)
class WatchedServer:
    """A server that was started before the supervisor, in the order to start; they stop in the reverse order.

    `on_restart` runs after each restart of ours, for example to create the topics that an empty broker has lost. It
    is repeated until it raises nothing. What needs an event loop goes through `run_forked`.
    """

    name: str
    server: Server
    on_restart: Callable[[], None] | None = None


@dataclass(slots=True)
class Backoff:
    """When to try again: at once, then after 0.2 s, doubling to 5 s; `settled` starts over."""

    not_before: float = 0.0
    delay_seconds: float = 0.0

    def failed(self, now: float) -> None:
        self.not_before = now + self.delay_seconds
        self.delay_seconds = min(self.delay_seconds * 2 or _FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS)

    def settled(self) -> None:
        self.not_before = self.delay_seconds = 0.0
