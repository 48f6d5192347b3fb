"""Errors on the wire: RFC 9457 problems with a stable `code`, and nothing internal in them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import iter_route_contexts
from opentelemetry.trace import SpanKind
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from codeagent.edge.refused_log import RefusedLog
from codeagent.edge.traffic.exchange import exchange_of
from codeagent.errors import CodeAgentError, Exhausted, InvalidInput, Unavailable
from codeagent.telemetry.logs import get_logger
from codeagent.telemetry.traces import current_traceparent, span

log = get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2
NOTHING_HERE = "There is nothing under this path."
_STATUS_CODES = {
    400: "malformed_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "payload_too_large",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
}
_REGISTERED = {
    "quota_exceeded": "https://iana.org/assignments/http-problem-types#quota-exceeded",
    "temporary_reduced_capacity": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
}
"""Problem types that are not ours alone."""
_TOLD = {
    "broker_unavailable": "The message broker does not answer. Nothing was accepted.",
    "database_unavailable": "The database does not answer.",
    "outcome_unknown": "It is not known whether this was done. Repeat it under the same Idempotency-Key.",
    "storage_full": "There is no room to store this.",
    "storage_unavailable": "The artifact storage does not answer.",
}
"""What clients are told of failures of ours. Their details are for the log: they name hosts, files and classes."""
_SAYS_ITSELF = frozenset({"not_implemented", "temporary_reduced_capacity"})
"""Failures that are decisions: their details are made for clients."""


class FieldProblem(BaseModel):
    """One field that is wrong. `pointer` is an RFC 6901 pointer into the body, or names a parameter."""

    pointer: str
    detail: str
    code: str


class Problem(BaseModel):
    """An error answer (RFC 9457). `code` is stable; `detail` is for people."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool = False
    trace_id: str | None = None
    errors: list[FieldProblem] = []
    violated_policies: list[str] | None = Field(default=None, alias="violated-policies")
    """The limits that were reached, as `RateLimit-Policy` names them."""


def errors_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How an operation's error answers are documented."""
    return {status: {"model": Problem, "content": {MEDIA_TYPE: {}}} for status in statuses}


class HttpProblem(CodeAgentError):
    """An error that needs headers of its own, such as how to authenticate."""

    def __init__(self, detail: str, *, code: str, status: int, headers: dict[str, str]) -> None:
        super().__init__(detail, code=code, status=status)
        self.headers = headers


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    errors: list[FieldProblem] | None = None,
    policies: tuple[str, ...] = (),
    headers: dict[str, str] | None = None,
) -> Response:
    """A problem response; 503 always says when to come back, 401 how to authenticate."""
    traceparent = current_traceparent()
    body = Problem(
        type=_REGISTERED.get(code, f"https://codeagent.io/problems/{code}"),
        title=code.replace("_", " ").capitalize(),
        status=status,
        detail=detail,
        code=code,
        retryable=status in {408, 429, 503, 504} or code == "idempotency_in_progress",
        trace_id=traceparent.split("-")[1] if traceparent else None,
        errors=errors or [],
        violated_policies=list(policies) or None,
    )
    extra = dict(headers or {})
    if status == 503:
        extra.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    if status == 401:
        extra.setdefault("WWW-Authenticate", 'Bearer realm="codeagent"')
    return JSONResponse(body.model_dump(exclude_none=True), status, extra, media_type=MEDIA_TYPE)


def from_error(error: CodeAgentError) -> Response:
    """The answer to an error of ours. What failed inside is told in general words only."""
    errors = (
        [FieldProblem(pointer=error.pointer, detail=error.detail, code=error.code)]
        if isinstance(error, InvalidInput) and error.pointer
        else None
    )
    status = 503 if isinstance(error, Unavailable) else error.status
    policies = error.policies if isinstance(error, Exhausted) else ()
    return problem(status, error.code, told(error), errors=errors, policies=policies, headers=headers_of(error))


def told(error: CodeAgentError) -> str:
    """What a client may know of an error."""
    if error.status < 500 or error.code in _SAYS_ITSELF:
        return error.detail
    return _TOLD.get(error.code, "Something went wrong on our side.")


def headers_of(error: CodeAgentError) -> dict[str, str]:
    """What an error says beside its body."""
    headers = dict(error.headers) if isinstance(error, (HttpProblem, Exhausted)) else {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return headers


def install(app: FastAPI) -> None:
    """Every error leaves as a problem, the unexpected ones included."""
    refused = RefusedLog()

    @app.exception_handler(CodeAgentError)
    async def _known(request: Request, error: Exception) -> Response:
        assert isinstance(error, CodeAgentError)
        refused.tell(error, request.scope)
        if error.status >= 500:
            log.warning("request.failed", code=error.code, detail=error.detail)
        return from_error(error)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        # Who looks for ways in, or sends what nobody can read, gets here before any route has counted it.
        try:
            app.state.traffic.admit_refused(exchange_of(request))
        except Exhausted as exhausted:
            refused.tell(exhausted, request.scope)
            return from_error(exhausted)
        code = _STATUS_CODES.get(error.status_code, "malformed_request")
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_methods(app, request.scope["path"]))
        detail = NOTHING_HERE if error.status_code == 404 else str(error.detail)
        return problem(error.status_code, code, detail, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        try:
            app.state.traffic.admit_refused(exchange_of(request))
        except Exhausted as exhausted:
            refused.tell(exhausted, request.scope)
            return from_error(exhausted)
        refused.tell(error, request.scope)
        return _validation(error, request.headers.get("content-type", ""))

    @app.exception_handler(Exception)
    async def _bug(_: Request, error: Exception) -> Response:
        # Only what fails in the outermost middleware itself comes here, and there is no trace yet.
        with span("crashed", SpanKind.SERVER):
            log.error("request.crashed", error=type(error).__name__, exc_info=error)
            return problem(500, "internal_error", "Something went wrong on our side.")


def _methods(app: FastAPI, path: str) -> list[str]:
    """Of all routes with this path: the framework names those of the first one only."""
    routes = (context for context in iter_route_contexts(app.routes) if context.methods)
    return sorted({method for route in routes if route.path_regex.match(path) for method in route.methods or ()})


def _validation(error: RequestValidationError, content_type: str) -> Response:
    found: list[dict[str, Any]] = list(error.errors())
    if any(item["type"] == "json_invalid" for item in found):
        return problem(400, "malformed_request", "The body is not valid JSON.")
    if any(item["type"] == "missing" and item["loc"] == ("body",) for item in found):
        return problem(400, "malformed_request", "The request has no JSON body.")
    if any(item["loc"][:1] == ("body",) for item in found) and not _is_json(content_type):
        return problem(415, "unsupported_media_type", "The body has to be application/json, and to say so.")
    errors = [
        FieldProblem(pointer=_pointer(item["loc"]), detail=_said(item), code=str(item["type"])) for item in found[:20]
    ]
    return problem(422, "validation_failed", "The request does not fit its schema.", errors=errors)


def _said(item: dict[str, Any]) -> str:
    """Of our own rules the framework says "Value error, " first."""
    return str(item["msg"]).removeprefix("Value error, ")[:300]


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


def _pointer(location: tuple[str | int, ...]) -> str:
    head, *rest = location
    parts = [str(part).replace("~", "~0").replace("/", "~1")[:100] for part in rest]
    return "/" + "/".join(parts) if head == "body" else f"{head}:{'/'.join(parts)}"
