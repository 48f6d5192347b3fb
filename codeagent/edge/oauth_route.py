"""The manners of OAuth endpoints: errors in the words of RFC 6749, and nothing kept by any cache."""

from __future__ import annotations

import base64
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import unquote_plus

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from codeagent.edge.problems import headers_of, told
from codeagent.edge.traffic.exchange import exchange_of
from codeagent.errors import CodeAgentError, Exhausted, Unavailable
from codeagent.identity.clients import OAuthError
from codeagent.identity.throttle import Throttled

NO_STORE = {"Cache-Control": "no-store"}
UNAVAILABLE = "temporarily_unavailable"
RETRY_AFTER_SECONDS = 2


class OAuthProblem(BaseModel):
    """An error of an OAuth endpoint (RFC 6749, section 5.2). `error` is for programs, the description for people."""

    error: str
    error_description: str


class OAuthRoute(APIRoute):
    """A route that never answers with a problem document, but for a bug."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                await _refuse_repeats(request)
                return await handler(request)
            except (RequestValidationError, HTTPException, CodeAgentError) as error:
                try:
                    # What cannot be read gets here before a dependency has counted it.
                    request.app.state.traffic.admit_refused(exchange_of(request))
                except Exhausted as exhausted:
                    return _answer(exhausted)
                return _answer(_in_its_words(error))

        return handle


async def _refuse_repeats(request: Request) -> None:
    """Parameters must not come more than once (RFC 6749, section 3.1)."""
    if "form" in request.headers.get("content-type", "").lower():
        form = await request.form()
        if len(form.multi_items()) != len(form):
            raise OAuthError("invalid_request", "A parameter stands there twice.")


def _in_its_words(error: RequestValidationError | HTTPException | CodeAgentError) -> CodeAgentError:
    if isinstance(error, CodeAgentError):
        return error
    if isinstance(error, HTTPException):
        return OAuthError("invalid_request", str(error.detail), status=error.status_code)
    names = sorted({".".join(str(part) for part in item["loc"][1:]) or "body" for item in error.errors()})
    return OAuthError("invalid_request", f"Missing or malformed: {', '.join(names)}."[:300])


def _answer(error: CodeAgentError) -> Response:
    headers = {**NO_STORE, **headers_of(error)}
    status, code = error.status, error.code
    if isinstance(error, Unavailable):
        status, code = 503, UNAVAILABLE
        headers.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    elif isinstance(error, (Throttled, Exhausted)):
        code = UNAVAILABLE
    elif not isinstance(error, OAuthError):
        code = "server_error" if status >= 500 else "invalid_request"
    if status == 401:
        headers.setdefault("WWW-Authenticate", 'Basic realm="codeagent"')
    body = OAuthProblem(error=code, error_description=told(error))
    return JSONResponse(body.model_dump(), status, headers)


def client_credentials(request: Request, client_id: str | None, secret: str | None) -> tuple[str, str | None]:
    """The client's id, and its secret if it shows one: from the header (RFC 6749, section 2.3.1) or the form.

    Raises `OAuthError` where both are used, or neither.
    """
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        if not client_id:
            raise OAuthError("invalid_request", "Missing or malformed: client_id.")
        return client_id, secret
    if secret is not None:
        raise OAuthError("invalid_request", "The client authenticates in two ways at once.")
    try:
        named, colon, shown = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        raise OAuthError("invalid_client", "The Authorization header is malformed.", status=401) from None
    if not colon or (client_id is not None and client_id != unquote_plus(named)):
        raise OAuthError("invalid_client", "The Authorization header is malformed.", status=401)
    return unquote_plus(named), unquote_plus(shown)
