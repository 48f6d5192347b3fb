"""`/oauth2`: codes, tokens and their end (OAuth 2.1, for our own clients and for service accounts)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from codeagent.edge.context import Users, count_anonymous
from codeagent.edge.models import Strict
from codeagent.edge.oauth_route import NO_STORE, OAuthProblem, OAuthRoute, client_credentials
from codeagent.edge.origins import origin_of
from codeagent.errors import NotFound
from codeagent.identity.clients import OAuthError, check_client
from codeagent.identity.grants import Grant
from codeagent.identity.jwt import Claims, ExpiredToken, InvalidToken
from codeagent.identity.logins import CODE_LIFETIME, LoginRequest
from codeagent.identity.origin import Origin
from codeagent.identity.scopes import format_scopes
from codeagent.identity.user_access import UserAccess
from codeagent.messages.identity_events import Revoked

ERRORS: dict[int | str, dict[str, Any]] = {status: {"model": OAuthProblem} for status in (400, 401, 413, 429, 501, 503)}
router = APIRouter(
    prefix="/oauth2",
    tags=["oauth"],
    route_class=OAuthRoute,
    responses=ERRORS,
    dependencies=[Depends(count_anonymous)],
)


class AuthorizeBody(Strict):
    """A login from one of our own clients."""

    response_type: Literal["code"] = "code"
    client_id: str = Field(max_length=100, examples=["cli"])
    email: str = Field(max_length=254, examples=["ada@example.org"])
    password: str = Field(max_length=256)
    code_challenge: str = Field(
        pattern=r"^[A-Za-z0-9_-]{43}$", description="BASE64URL(SHA256(code_verifier)), RFC 7636."
    )
    code_challenge_method: Literal["S256"] = "S256"
    scope: str | None = Field(default=None, max_length=1_000, description="All that the user may do if left out.")
    state: str | None = Field(default=None, max_length=500, description="Comes back as it is.")


class CodeModel(BaseModel):
    """Good for one use within `expires_in` seconds."""

    code: str
    expires_in: int
    iss: str
    state: str | None = None


class TokenForm(BaseModel):
    """What each grant needs: `code` and `code_verifier`, or `refresh_token`, or a client's secret."""

    grant_type: str = Field(max_length=100, examples=["refresh_token"])
    client_id: str | None = Field(default=None, max_length=100)
    client_secret: str | None = Field(default=None, max_length=200)
    code: str | None = Field(default=None, max_length=200)
    code_verifier: str | None = Field(default=None, max_length=128)
    refresh_token: str | None = Field(default=None, max_length=200)
    scope: str | None = Field(default=None, max_length=1_000)


class TokenModel(BaseModel):
    """`expires_in` is in seconds. `scope` is what the user's role allows, which may be less than was asked for."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  a scheme
    expires_in: int
    scope: str
    refresh_token: str | None = None


class RevokeForm(BaseModel):
    token: str = Field(max_length=4096)
    token_type_hint: str | None = Field(default=None, max_length=100)
    client_id: str | None = Field(default=None, max_length=100)
    client_secret: str | None = Field(default=None, max_length=200)


@router.post("/authorize", response_model=CodeModel, summary="Log in with e-mail and password")
async def authorize(body: AuthorizeBody, request: Request, users: Users) -> Response:
    """Answers a code for `/oauth2/token`. JSON instead of a page, for our own clients `cli` and `console` alone: there
    is nobody else yet whom a user could let in."""
    login = LoginRequest(
        body.email, body.password, body.client_id, body.code_challenge, body.code_challenge_method, body.scope
    )
    code = await users.logins.authorize(login, origin_of(request))
    seconds = int(CODE_LIFETIME.total_seconds())
    answer = CodeModel(code=code, expires_in=seconds, iss=users.issuer, state=body.state)
    return JSONResponse(answer.model_dump(exclude_none=True), headers=NO_STORE)


@router.post("/token", response_model=TokenModel, summary="Get an access token")
async def token(form: Annotated[TokenForm, Form()], request: Request, users: Users) -> Response:
    """For a code with its verifier, for a refresh token, or for a service account's secret.

    A refresh token is good for one use. One that comes again later than ten seconds, or from elsewhere, ends its
    session.
    """
    client_id, secret = client_credentials(request, form.client_id, form.client_secret)
    grant = await _grant(form, client_id, secret, users, origin_of(request))
    issued = await users.tokens.issue(grant)
    answer = TokenModel(
        access_token=issued.text,
        expires_in=issued.expires_in,
        scope=format_scopes(grant.scopes),
        refresh_token=grant.refresh_token,
    )
    return JSONResponse(answer.model_dump(exclude_none=True), headers=NO_STORE)


async def _grant(form: TokenForm, client_id: str, secret: str | None, users: UserAccess, origin: Origin) -> Grant:
    if form.grant_type == "client_credentials":
        if secret is None:
            raise OAuthError("invalid_client", "The client must show its secret.", status=401)
        return await users.service_accounts.grant(client_id, secret, form.scope, origin.address)
    if form.grant_type not in {"authorization_code", "refresh_token"}:
        raise OAuthError("unsupported_grant_type", "There is no such grant here.")
    check_client(client_id)
    if form.grant_type == "refresh_token":
        return await users.grants.refresh(_given(form.refresh_token, "refresh_token"), client_id, origin)
    verifier = _given(form.code_verifier, "code_verifier")
    return await users.grants.redeem(_given(form.code, "code"), verifier, client_id, origin)


def _given(value: str | None, name: str) -> str:
    if not value:
        raise OAuthError("invalid_request", f"Missing or malformed: {name}.")
    return value


@router.post(
    "/revoke",
    response_class=Response,
    response_description="It is not valid any more.",
    summary="End the session of a token (RFC 7009)",
)
async def revoke(form: Annotated[RevokeForm, Form()], request: Request, users: Users) -> Response:
    """200 also for a token that is not known, or not any more: it is not valid afterwards, which is what was asked."""
    client_id, secret = client_credentials(request, form.client_id, form.client_secret)
    origin = origin_of(request)
    if secret is None:
        check_client(client_id)
    else:
        await users.service_accounts.authenticate(client_id, secret, origin.address)
    if form.token.startswith("crt_"):
        await users.grants.revoke(form.token, client_id, origin)
        return Response(headers=NO_STORE)
    try:
        claims = await users.tokens.read(form.token)
    except (InvalidToken, ExpiredToken):
        return Response(headers=NO_STORE)
    if claims.client_id == client_id:
        await _end(claims, users, origin)
    return Response(headers=NO_STORE)


async def _end(claims: Claims, users: UserAccess, origin: Origin) -> None:
    if claims.sub == claims.client_id:
        author = origin.author(claims.tenant_id, claims.sub, "service_account")
        await users.service_accounts.revoke_token(author, claims.jti)
        return
    author = origin.author(claims.tenant_id, claims.sub)
    try:
        await users.sessions.revoke_one(author, claims.sub, claims.sid, Revoked.LOGOUT)
    except NotFound:
        return  # it has ended already
