"""Routes that are going to be removed say so with every answer: Deprecation (RFC 9745) and Sunset (RFC 8594)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from fastapi import Request

from codeagent.edge.traffic.exchange import Headers, exchange_of, route_of
from codeagent.telemetry import metrics

SHORTEST_NOTICE = timedelta(days=182)
"""See docs/versioning.md."""


@dataclass(frozen=True, slots=True)
class Retirement:
    """Of a route, as one of its dependencies: `dependencies=[Depends(Retirement(...))]`.

    `deprecated` and `sunset` are moments with a time zone; after the sunset the route may be gone. `notice` is a page
    that explains, `successor` the route to use instead. Raises `ValueError` for a notice shorter than promised.
    """

    deprecated: datetime
    sunset: datetime
    notice: str
    successor: str | None = None

    def __post_init__(self) -> None:
        if self.deprecated.tzinfo is None or self.sunset.tzinfo is None:
            raise ValueError("a retirement's moments need a time zone")
        if self.sunset - self.deprecated < SHORTEST_NOTICE:
            raise ValueError(f"a route stays for {SHORTEST_NOTICE.days} days after it is deprecated")

    def headers(self) -> Headers:
        """As field lines of an answer."""
        links = [f'<{self.notice}>; rel="deprecation"; type="text/html"', f'<{self.notice}>; rel="sunset"']
        if self.successor is not None:
            links.append(f'<{self.successor}>; rel="successor-version"')
        return [
            (b"deprecation", f"@{int(self.deprecated.timestamp())}".encode()),
            (b"sunset", format_datetime(self.sunset.astimezone(UTC), usegmt=True).encode()),
            (b"link", ", ".join(links).encode()),
        ]

    async def __call__(self, request: Request) -> None:
        exchange_of(request).headers += self.headers()
        metrics.DEPRECATED_REQUESTS.labels(route_of(request.scope)).inc()
