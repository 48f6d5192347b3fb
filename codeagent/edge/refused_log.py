"""What an edge refuses, in its log: input that does not fit, and requests beyond a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from fastapi.exceptions import RequestValidationError
from starlette.types import Scope

from codeagent.edge.traffic.exchange import route_of
from codeagent.errors import Exhausted, InvalidInput
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)
EVERY_SECONDS = 1.0


@dataclass(slots=True)
class _Kind:
    times: int = 0
    silent_until: float = 0.0


class RefusedLog:
    """One line a second at most for each kind of refusal, with how many it stands for: who floods an edge must not
    flood its log as well. Values are names of ours (routes, codes, policies), so that there are not many kinds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._kinds: dict[tuple[str, ...], _Kind] = {}

    def tell(self, error: Exception, scope: Scope) -> None:
        """Of other errors than these nothing."""
        if isinstance(error, Exhausted):
            self.note("limit.reached", route=route_of(scope), policy=",".join(error.policies) or error.code)
        elif isinstance(error, InvalidInput):
            self.note("input.refused", route=route_of(scope), codes=error.code)
        elif isinstance(error, RequestValidationError):
            codes = ",".join(sorted({str(item["type"]) for item in error.errors()}))
            self.note("input.refused", route=route_of(scope), codes=codes)

    def note(self, event: str, **values: str) -> None:
        kind = self._kinds.setdefault((event, *values.values()), _Kind())
        kind.times += 1
        now = self._now()
        if now >= kind.silent_until:
            log.info(event, **values, times=kind.times)
            kind.times, kind.silent_until = 0, now + EVERY_SECONDS
