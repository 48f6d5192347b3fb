"""The OpenAPI document: what the framework derives from the routes, and for each operation who may call it, which
errors it answers, and what comes with its answers. Derived here, so that no route can forget it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from codeagent.edge.admission import STREAM_SCOPES, get_admission
from codeagent.edge.context import get_principal
from codeagent.edge.deprecation import Retirement
from codeagent.edge.examples import EXAMPLES
from codeagent.edge.problems import MEDIA_TYPE, Problem

OPENAPI_VERSION = "3.2.0"
TAGS = {
    "runs": "One execution of a task by an agent: submit it, watch it, cancel it.",
    "approvals": "What runs ask before they act: look at it, allow it, refuse it.",
    "projects": "A repository and what its runs use: defaults, quotas, a git credential.",
    "sessions": "Conversations: runs that follow each other on the same files.",
    "events": "What happens in all runs of a tenant, as pages and as a stream.",
    "artifacts": "Big bytes, named by their digest: source archives in, patches and outputs out.",
    "agents": "What does the work: definitions as data, in versions that never change.",
    "providers": "What agents think with: the models that runs may name.",
    "webhooks": "Servers that are told of runs, and what was sent to them.",
    "usage": "What runs have used, and what it cost.",
    "budgets": "What a tenant lets itself spend.",
    "quotas": "Which limits of traffic apply.",
    "account": "What callers may know and do about themselves.",
    "API keys": "Credentials for programs: make, rotate and revoke them.",
    "service accounts": "Programs that act in the tenant's name.",
    "audit": "Who did what, from where, when; and whether the log still says so.",
    "privacy": "Requests of persons about their data, and breaches (GDPR).",
    "members": "The users of a tenant, and what their roles permit.",
    "oauth": "Codes, tokens and their end, for users and service accounts (OAuth 2.1).",
    "contract": "What this API and its messages look like.",
    "administration": "The whole installation, for its operators alone.",
    "operations": "Health and metrics, for whoever runs this.",
}
ERRORS: dict[int, tuple[str, str]] = {
    400: ("malformed_request", "The request cannot be read, or a header or cursor in it is malformed."),
    401: ("unauthenticated", "A valid API key or access token is needed."),
    403: ("insufficient_scope", "The credential may not do this."),
    404: ("not_found", "There is nothing of this name for this tenant."),
    406: ("not_acceptable", "Nothing that the Accept header asks for can be made."),
    408: ("request_timeout", "The body took too long to come."),
    409: ("conflict", "It does not go with what is there already."),
    410: ("erased", "It was there once, and was erased."),
    412: ("version_mismatch", "If-Match names another version than the current one."),
    413: ("payload_too_large", "The body is too large."),
    415: ("unsupported_media_type", "The body has another media type than is taken here."),
    416: ("range_not_satisfiable", "The range lies beyond the end."),
    422: ("validation_failed", "A field cannot be accepted; `errors` names it."),
    428: ("precondition_required", "If-Match is required."),
    429: ("quota_exceeded", "A limit is reached; `Retry-After` says when to come back."),
    431: ("headers_too_large", "The headers are too many or too large."),
    500: ("internal_error", "Something went wrong on our side."),
    501: ("not_implemented", "This is not there yet."),
    502: ("provider_error", "A model provider failed."),
    503: ("unavailable", "Something the system needs is away, or too much is going on. Try again."),
    504: ("upstream_timeout", "It took too long. It may have been carried out all the same."),
}
_HEADERS: dict[str, tuple[str, str]] = {
    "RateLimit": ("What is left: `r` requests within the next `t` seconds.", '"read";r=11999;t=42'),
    "RateLimit-Policy": ("The limits: `q` requests in `w` seconds.", '"read";q=12000;w=60'),
    "X-Request-Id": ("Names this request in logs and facts.", "01935f6e-8c4b-7d2a-9c1e-3f5a7b9d1e20"),
}
_SECURITY: dict[str, dict[str, Any]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key (`cak_...`) or an access token. Operations list the scopes they need.",
    },
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
}
_PARAMETERS = {
    "limit": "Most items of a page.",
    "cursor": "`next_cursor` of the page before.",
}
"""What parameters mean everywhere."""
_OPERATIONS = frozenset({"get", "head", "post", "put", "patch", "delete"})


def build(app: FastAPI, public_url: str | None = None) -> dict[str, Any]:
    """The whole document. `public_url` is named as the server."""
    app.openapi_version = OPENAPI_VERSION
    document = app.openapi()
    document["servers"] = [{"url": public_url or "/"}]
    used = {tag for _, operation in _operations(document) for tag in operation.get("tags", ())}
    document["tags"] = [{"name": tag, "description": text} for tag, text in TAGS.items() if tag in used]
    components = document.setdefault("components", {})
    _describe_problems(components)
    # Not with the models: the framework would leave their nulls out.
    for name, schema in components["schemas"].items():
        if name in EXAMPLES:
            schema["examples"] = [EXAMPLES[name]]
        for described in schema.get("properties", {}).values():
            # Of a set; what stands there twice is taken once, and no mistake.
            described.pop("uniqueItems", None)
    components["securitySchemes"] = _SECURITY
    components["headers"] = {
        name: {"description": text, "schema": {"type": "string"}, "example": value}
        for name, (text, value) in _HEADERS.items()
    }
    dependants = _dependants(app)
    for (path, method), operation in _operations(document):
        _complete(operation, path, dependants.get((path, method)))
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in _OPERATIONS:
                yield (path, method), operation


def _dependants(app: FastAPI) -> dict[tuple[str, str], Dependant]:
    return {
        (context.path_format or "", method.lower()): context.dependant
        for context in iter_route_contexts(app.routes)
        if hasattr(context.original_route, "dependant")
        for method in context.methods or ()
    }


def _tree(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for below in dependant.dependencies:
        yield from _tree(below)


def scopes_of(dependant: Dependant) -> list[str] | None:
    """The scopes that a route's callers need, or None where it asks for no credential."""
    tree = list(_tree(dependant))
    if any(below.call is get_admission for below in tree):
        return sorted(STREAM_SCOPES)
    callers = [below for below in tree if below.call is get_principal]
    return sorted({scope for below in callers for scope in below.own_oauth_scopes or ()}) if callers else None


def _complete(operation: dict[str, Any], path: str, dependant: Dependant | None) -> None:
    scopes = None if dependant is None else scopes_of(dependant)
    responses = operation["responses"]
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in _PARAMETERS:
            parameter.setdefault("description", _PARAMETERS[parameter["name"]])
        if parameter["name"] == "Idempotency-Key" or (parameter["name"] == "If-Match" and "428" in responses):
            _require(parameter)
    operation["security"] = [] if scopes is None else [{name: scopes} for name in _SECURITY]
    for status in _statuses(operation, path, secured=scopes is not None):
        responses.setdefault(str(status), {})
    for status, response in responses.items():
        if status[0] in "45":
            _describe_error(responses, int(status))
        else:
            if response["description"] == "Successful Response":
                response["description"] = f"{operation['summary']}."
            response.setdefault("headers", {}).update(_answer_headers(secured=scopes is not None))
    if dependant is not None and any(isinstance(below.call, Retirement) for below in _tree(dependant)):
        operation["deprecated"] = True


def _require(header: dict[str, Any]) -> None:
    """Optional in the code alone, where leaving it out is refused with a code that says what it is for."""
    header["required"] = True
    header["schema"] = {"type": "string", "minLength": 1}


def _statuses(operation: dict[str, Any], path: str, *, secured: bool) -> Iterable[int]:
    """The errors that any operation of this kind may answer."""
    yield from (500,)
    if "operations" in operation.get("tags", ()):
        return
    yield from (429, 503, 504)
    if secured:
        yield from (401, 403, 406)
    if operation.get("parameters") or "requestBody" in operation:
        yield from (400, 422)
    if "{" in path:
        yield 404
    if "{run_id}" in path:
        yield 410  # whoever it belonged to was erased
    if "requestBody" in operation:
        yield from (408, 413, 415)


def _describe_error(responses: dict[str, Any], status: int) -> None:
    """A reference to what every operation says of this status, unless this one says something of its own."""
    if status not in ERRORS or _is_no_problem(responses[str(status)]):
        return
    code, text = ERRORS[status]
    own = responses[str(status)].get("description", "")
    if own in {"", HTTPStatus(status).phrase, "Validation Error"}:
        responses[str(status)] = {"$ref": f"#/components/responses/{_name(code)}"}
    else:
        responses[str(status)] = {"description": own, "content": _problem_content(status, code, text)}


def _is_no_problem(response: dict[str, Any]) -> bool:
    """Whether the route answers this status with a model of its own, as readiness does."""
    reference = response.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref", "")
    return reference.rpartition("/")[2] not in {"", "Problem", "HTTPValidationError"}


def _name(code: str) -> str:
    return "".join(word.capitalize() for word in code.split("_"))


def _problem_content(status: int, code: str, text: str) -> dict[str, Any]:
    sample = Problem(
        type=f"https://codeagent.io/problems/{code}",
        title=code.replace("_", " ").capitalize(),
        status=status,
        detail=text,
        code=code,
        retryable=status in {408, 429, 503, 504},
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    )
    schema = {"$ref": "#/components/schemas/Problem"}
    return {MEDIA_TYPE: {"schema": schema, "example": sample.model_dump(mode="json", exclude_none=True)}}


def _describe_problems(components: dict[str, Any]) -> None:
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
    schemas = components.setdefault("schemas", {})
    schemas |= schema.pop("$defs")
    schemas["Problem"] = schema
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    components["responses"] = {
        _name(code): {"description": text, "content": _problem_content(status, code, text)}
        for status, (code, text) in ERRORS.items()
    }


def _answer_headers(*, secured: bool) -> dict[str, Any]:
    names = list(_HEADERS) if secured else ["X-Request-Id"]
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
