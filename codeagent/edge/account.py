"""What callers may know and do about themselves: who they are, their logins, their password."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from codeagent.edge.answers import NO_STORE, answer
from codeagent.edge.authors import author_of
from codeagent.edge.context import Caller, Context, Users
from codeagent.edge.models import Strict
from codeagent.edge.origins import origin_of
from codeagent.edge.pages import Limit, PageCursor, page_answer
from codeagent.edge.problems import errors_of
from codeagent.errors import NotFound, Rejected
from codeagent.identity.principal import Principal
from codeagent.identity.scopes import Role
from codeagent.identity.sessions import LoginSession
from codeagent.messages.identity_events import Revoked

router = APIRouter(tags=["account"], responses=errors_of(400, 401, 403, 404, 422, 429, 501, 503))


class MeModel(BaseModel):
    """The caller. `role` and `email` are those of a user; programs have none."""

    id: str
    type: str
    tenant_id: str
    scopes: list[str]
    role: Role | None = None
    email: str | None = None
    created_at: datetime | None = None
    password_change_required: bool = Field(
        default=False, description="The password is a temporary one: nothing else is permitted until it is changed."
    )


class LoginSessionModel(BaseModel):
    """A login. `network` is the same for logins from nearby, and no address; `current` is the one that asks."""

    id: str
    client_id: str
    network: str
    current: bool
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, session: LoginSession, current: str) -> LoginSessionModel:
        return cls(
            id=session.id,
            client_id=session.client_id,
            network=session.network,
            current=session.id == current,
            created_at=session.created_at,
            last_used_at=session.last_used_at,
            expires_at=session.expires_at,
        )


class LoginSessionPage(BaseModel):
    items: list[LoginSessionModel]
    next_cursor: str | None


class PasswordBody(Strict):
    """Both as plain text, over TLS."""

    current_password: str = Field(max_length=256)
    new_password: str = Field(max_length=256, description="12 to 256 characters, and none of the first guesses.")


def _user(caller: Principal) -> Principal:
    if caller.type != "app_user":
        raise Rejected("Only a user who has logged in can do this.", code="forbidden", status=403)
    return caller


@router.get("/v1/me", response_model=MeModel, summary="Who is calling")
async def me(context: Context, caller: Caller) -> Response:
    """Works with every credential, whatever its scopes."""
    shown = MeModel(id=caller.id, type=caller.type, tenant_id=caller.tenant_id, scopes=sorted(caller.scopes))
    if caller.type == "app_user" and context.users is not None:
        user = await context.users.accounts.read(caller)
        shown = shown.model_copy(
            update={
                "role": user.role,
                "email": user.email,
                "created_at": user.created_at,
                "password_change_required": user.password_is_temporary,
            }
        )
    return answer(shown, cache=NO_STORE)


@router.get("/v1/auth/sessions", response_model=LoginSessionPage, summary="List my logins, newest first")
async def list_login_sessions(
    caller: Caller,
    users: Users,
    limit: Limit = 50,
    cursor: PageCursor = None,
) -> Response:
    """Logins that can still be used."""
    user = _user(caller)
    found, following = await users.sessions.list(user.tenant_id, user.id, cursor, limit)
    page = LoginSessionPage(
        items=[LoginSessionModel.of(session, user.credential_id) for session in found], next_cursor=following
    )
    return page_answer(page, "/v1/auth/sessions", limit=limit, cursor=following, cache=NO_STORE)


@router.delete("/v1/auth/sessions", status_code=204, summary="Log out everywhere")
async def end_all_sessions(caller: Caller, users: Users) -> Response:
    """Ends all logins, this one included. Every edge refuses them within a second."""
    user = _user(caller)
    await users.sessions.revoke_all(author_of(user), user.id, Revoked.REVOKED)
    return Response(status_code=204)


@router.delete("/v1/auth/sessions/{session_id}", status_code=204, summary="End one of my logins")
async def end_session(session_id: str, caller: Caller, users: Users) -> Response:
    """Every edge refuses it within a second."""
    user = _user(caller)
    await users.sessions.revoke_one(author_of(user), user.id, session_id, Revoked.REVOKED)
    return Response(status_code=204)


@router.post("/oauth2/logout", status_code=204, summary="End the login that asks")
async def logout(caller: Caller, users: Users) -> Response:
    """As when its refresh token is sent to `/oauth2/revoke`."""
    user = _user(caller)
    try:
        await users.sessions.revoke_one(author_of(user), user.id, user.credential_id, Revoked.LOGOUT)
    except NotFound:
        pass  # another request ended it a moment ago
    return Response(status_code=204)


@router.post("/v1/auth/password", status_code=204, summary="Change my password")
async def change_password(body: PasswordBody, request: Request, caller: Caller, users: Users) -> Response:
    """Ends all other logins. After a temporary password, refresh the token to get what your role may do."""
    user = _user(caller)
    await users.accounts.change_password(user, body.current_password, body.new_password, origin_of(request))
    return Response(status_code=204)
