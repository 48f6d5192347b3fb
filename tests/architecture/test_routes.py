"""Nobody gets to a tenant's data without a caller, and no caller without a scope."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts

from codeagent.edge.admission import get_admission
from codeagent.edge.app import create_app
from codeagent.edge.context import count_anonymous, get_principal
from codeagent.edge.middleware import HEALTH_PATHS

PUBLIC = {
    "/livez": "whoever runs it asks whether it lives",
    "/readyz": "load balancers have no key",
    "/startupz": "as /readyz",
    "/version": "what is running is no secret",
    "/metrics": "scrapers have no key; it names no tenant",
    "/openapi.json": "the contract is public",
    "/asyncapi.json": "as above",
    "/v1/schemas": "as above",
    "/v1/schemas/{name}/{version}": "as above",
    "/.well-known/security.txt": "whoever has found something has no key",
    "/.well-known/api-catalog": "clients read it before they have anything",
    "/oauth2/authorize": "it asks for the password",
    "/oauth2/token": "it asks for a code, a refresh token or a secret",
    "/oauth2/revoke": "whoever holds a token may end it",
    "/.well-known/oauth-authorization-server": "clients read it before they have anything",
    "/.well-known/oauth-protected-resource": "as above",
    "/.well-known/jwks.json": "public keys",
}
"""Every path that needs no credential, and why."""
OWN = {
    "/v1/me": "who it is that asks",
    "/v1/auth/sessions": "the caller's own logins",
    "/v1/auth/sessions/{session_id}": "the caller's own logins",
    "/v1/auth/password": "the caller's own password, which a temporary one, without any scope, must be able to change",
    "/v1/quotas": "the caller's own limits",
    "/v1/roles": "what roles there are and permit is no secret",
    "/oauth2/logout": "the caller's own login",
}
"""Every path that needs a caller and no scope, and why."""
STREAMS = {"/v1/events", "/v1/runs/{run_id}/events"}
"""Take a ticket instead of a header: `get_admission` asks either for the scopes of streams."""
SOCKETS = {"/v1/ws"}
"""Ask for the credential in the first frame: tests/integration/edge/test_websocket.py."""

ROUTES = list(iter_route_contexts(create_app(None).routes))


def dependencies(dependant: Dependant) -> Iterator[Dependant]:
    for dependency in dependant.dependencies:
        yield dependency
        yield from dependencies(dependency)


def scopes_of(route: RouteContext) -> set[str]:
    """What a caller of the route must hold; empty where there is no caller."""
    dependant: Dependant = route.original_route.dependant
    return {
        scope
        for dependency in dependencies(dependant)
        if dependency.call is get_principal
        for scope in (*dependency.own_oauth_scopes, *dependency.parent_oauth_scopes)
    }


def has_caller(route: RouteContext) -> bool:
    dependant: Dependant | None = getattr(route.original_route, "dependant", None)
    return dependant is not None and any(each.call is get_principal for each in dependencies(dependant))


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{'/'.join(sorted(route.methods or ()))} {route.path}")
def test_a_route_asks_for_a_scope_unless_it_is_listed_as_public(route: RouteContext) -> None:
    if route.path in PUBLIC:
        assert not str(route.path).startswith("/v1") or str(route.path).startswith("/v1/schemas")
        assert not has_caller(route)
        if route.path not in HEALTH_PATHS:
            dependant: Dependant = route.original_route.dependant
            assert any(each.call is count_anonymous for each in dependencies(dependant)), "nobody counts its callers"
    elif route.path in OWN:
        assert has_caller(route)
    elif route.path in STREAMS:
        dependant: Dependant = route.original_route.dependant
        assert any(each.call is get_admission for each in dependencies(dependant))
    elif route.path in SOCKETS:
        assert not has_caller(route)
    else:
        assert str(route.path).startswith("/v1")
        assert scopes_of(route)


CHANGES = [route for route in ROUTES if not {"GET", "HEAD"} & set(route.methods or ())]
NO_CHANGES = {"/v1/stream-tickets"}
"""Are posted to, and open nothing that their caller may not read anyway."""


@pytest.mark.parametrize(
    "route",
    [route for route in CHANGES if route.path not in PUBLIC.keys() | OWN.keys() | SOCKETS | NO_CHANGES],
    ids=lambda route: str(route.path),
)
def test_what_changes_something_asks_for_more_than_a_scope_to_read(route: RouteContext) -> None:
    assert any(not scope.endswith(":read") for scope in scopes_of(route))


def test_what_is_listed_is_there() -> None:
    assert set(PUBLIC) | set(OWN) <= {route.path for route in ROUTES}
