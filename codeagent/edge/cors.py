"""Pages of other origins: those that are listed, exactly as listed, and no others."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.trace import SpanKind
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from codeagent.edge.problems import problem
from codeagent.telemetry.traces import span

PREFLIGHT_SECONDS = 7_200
"""As long as browsers keep the answer to a preflight at most."""
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_REQUEST_HEADERS = (
    "Accept",
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "Last-Event-ID",
    "Prefer",
    "Range",
    "X-API-Key",
    "traceparent",
)
_ANSWER_HEADERS = (
    "Deprecation",
    "ETag",
    "Idempotent-Replayed",
    "Link",
    "Location",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Repr-Digest",
    "Retry-After",
    "Sunset",
    "WWW-Authenticate",
    "X-Request-Id",
)


class Cors(CORSMiddleware):
    """Around everything else, so that a page can read errors too. `*` is for development: it never comes with
    credentials, which here are headers that a page sends by itself and no cookies."""

    def __init__(self, app: ASGIApp, *, origins: Sequence[str], always: tuple[tuple[bytes, bytes], ...]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=_REQUEST_HEADERS,
            expose_headers=_ANSWER_HEADERS,
            allow_credentials=False,
            max_age=PREFLIGHT_SECONDS,
        )
        self._always = list(always)

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code >= 400:
            with span("OPTIONS", SpanKind.SERVER):
                answer = problem(403, "forbidden", "Pages of this origin may not ask that.", headers={"Vary": "Origin"})
        answer.raw_headers += self._always
        return answer
