"""Errors on the wire: RFC 9457 problems with a stable `code`, and nothing internal in them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from codeagent.errors import CodeAgentError, InvalidInput, Unavailable
from codeagent.telemetry.logs import get_logger
from codeagent.telemetry.traces import current_traceparent

log = get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2
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


class FieldProblem(BaseModel):
    """One field that is wrong. `pointer` is an RFC 6901 pointer into the body, or names a parameter."""

    pointer: str
    detail: str
    code: str


class Problem(BaseModel):
    """An error answer (RFC 9457). `code` is stable; `detail` is for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool = False
    trace_id: str | None = None
    errors: list[FieldProblem] = []


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
    headers: dict[str, str] | None = None,
) -> Response:
    """A problem response; 503 always says when to come back, 401 how to authenticate."""
    traceparent = current_traceparent()
    body = Problem(
        type=f"https://codeagent.io/problems/{code}",
        title=code.replace("_", " ").capitalize(),
        status=status,
        detail=detail,
        code=code,
        retryable=status in {429, 503} or code == "idempotency_in_progress",
        trace_id=traceparent.split("-")[1] if traceparent else None,
        errors=errors or [],
    )
    extra = dict(headers or {})
    if status == 503:
        extra.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    if status == 401:
        extra.setdefault("WWW-Authenticate", 'Bearer realm="codeagent"')
    return JSONResponse(body.model_dump(exclude_none=True), status, extra, media_type=MEDIA_TYPE)


def from_error(error: CodeAgentError) -> Response:
    errors = (
        [FieldProblem(pointer=error.pointer, detail=error.detail, code=error.code)]
        if isinstance(error, InvalidInput) and error.pointer
        else None
    )
    status = 503 if isinstance(error, Unavailable) else error.status
    return problem(status, error.code, error.detail, errors=errors, headers=headers_of(error))


def headers_of(error: CodeAgentError) -> dict[str, str]:
    """What an error says beside its body."""
    headers = dict(error.headers) if isinstance(error, HttpProblem) else {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return headers


def install(app: FastAPI) -> None:
    """Every error leaves as a problem, the unexpected ones included."""

    @app.exception_handler(CodeAgentError)
    async def _known(_: Request, error: Exception) -> Response:
        assert isinstance(error, CodeAgentError)
        if error.status >= 500:
            log.warning("request.failed", code=error.code, detail=error.detail)
        return from_error(error)

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = _STATUS_CODES.get(error.status_code, "malformed_request")
        return problem(error.status_code, code, str(error.detail), headers=dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _validation(error)

    @app.exception_handler(Exception)
    async def _bug(_: Request, error: Exception) -> Response:
        log.error("request.crashed", error=type(error).__name__, exc_info=error)
        return problem(500, "internal_error", "Something went wrong on our side.")


def _validation(error: RequestValidationError) -> Response:
    found: list[dict[str, Any]] = list(error.errors())
    if any(item["type"] == "json_invalid" for item in found):
        return problem(400, "malformed_request", "The body is not valid JSON.")
    if any(item["type"] == "missing" and item["loc"] == ("body",) for item in found):
        return problem(400, "malformed_request", "The request has no JSON body.")
    errors = [
        FieldProblem(pointer=_pointer(item["loc"]), detail=str(item["msg"])[:300], code=str(item["type"]))
        for item in found[:20]
    ]
    return problem(422, "validation_failed", "The request does not fit its schema.", errors=errors)


def _pointer(location: tuple[str | int, ...]) -> str:
    head, *rest = location
    parts = [str(part).replace("~", "~0").replace("/", "~1")[:100] for part in rest]
    return "/" + "/".join(parts) if head == "body" else f"{head}:{'/'.join(parts)}"
