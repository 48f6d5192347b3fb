"""Nobody gets to a tenant's data without a caller, and no caller without a scope."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts

from codeagent.edge.app import create_app
from codeagent.edge.context import get_principal

PUBLIC = {
    "/livez": "whoever runs it asks whether it lives",
    "/readyz": "load balancers have no key",
    "/startupz": "as /readyz",
    "/version": "what is running is no secret",
    "/metrics": "scrapers have no key; it names no tenant",
    "/openapi.json": "the contract is public",
}
"""Every path that needs no credential, and why."""

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


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{'/'.join(sorted(route.methods or ()))} {route.path}")
def test_a_route_asks_for_a_scope_unless_it_is_listed_as_public(route: RouteContext) -> None:
    if route.path in PUBLIC:
        assert not str(route.path).startswith("/v1")
    else:
        assert str(route.path).startswith("/v1")
        assert scopes_of(route)


def test_what_is_listed_as_public_is_there() -> None:
    assert set(PUBLIC) <= {route.path for route in ROUTES}
