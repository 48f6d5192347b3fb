"""`/.well-known`: what a client needs to know before it has anything (RFC 8414, RFC 9728, RFC 7517)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse, Response

from codeagent.edge.challenges import METADATA_PATH
from codeagent.edge.context import Context, Users, count_anonymous
from codeagent.edge.problems import errors_of
from codeagent.identity.scopes import ALL

router = APIRouter(tags=["oauth"], responses=errors_of(501, 503), dependencies=[Depends(count_anonymous)])
CACHED = {"Cache-Control": "public, max-age=300"}
"""Much shorter than a key is published before it signs."""


def _showing(**members: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"application/json": {"example": members}}}}


@router.get(
    "/.well-known/oauth-authorization-server",
    summary="What the authorization server offers",
    responses=_showing(issuer="https://codeagent.example.com"),
)
async def authorization_server(users: Users) -> Response:
    """Its endpoints, and which ways of getting and showing tokens it knows."""
    issuer = users.issuer
    public = ["none", "client_secret_basic", "client_secret_post"]
    document: dict[str, Any] = {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/oauth2/authorize",
        "token_endpoint": f"{issuer}/oauth2/token",
        "revocation_endpoint": f"{issuer}/oauth2/revoke",
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "scopes_supported": sorted(ALL),
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": public,
        "revocation_endpoint_auth_methods_supported": public,
        "authorization_response_iss_parameter_supported": True,
    }
    return JSONResponse(document, headers=CACHED)


@router.get(
    "/.well-known/jwks.json",
    summary="Keys that verify access tokens",
    responses=_showing(keys=[{"kty": "EC", "kid": "..."}]),
)
async def jwks(users: Users) -> Response:
    """Holds the next key as well, before it signs anything."""
    return JSONResponse(await users.keys.jwks(), headers=CACHED)


@router.get(
    METADATA_PATH,
    summary="Who issues tokens for this API",
    responses=_showing(resource="https://codeagent.example.com"),
)
async def protected_resource(context: Context) -> Response:
    """And how tokens are shown to it."""
    url = context.policy.public_url
    document: dict[str, Any] = {
        "resource": url,
        "resource_name": "CodeAgent",
        "authorization_servers": [url] if context.users is not None else [],
        "scopes_supported": sorted(ALL),
        "bearer_methods_supported": ["header"],
    }
    return JSONResponse(document, headers=CACHED)
