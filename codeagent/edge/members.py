"""`/v1/members` and `/v1/roles`: the users of a tenant, and what they may do."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, Field

from codeagent.edge.accept import idempotency_key
from codeagent.edge.answers import NO_STORE, answer, made
from codeagent.edge.authors import author_of
from codeagent.edge.context import Caller, MemberWriter, Users
from codeagent.edge.models import Strict
from codeagent.edge.pages import Limit, PageCursor, page_answer
from codeagent.edge.parameters import IfMatch, RequestKey
from codeagent.edge.preconditions import check_match
from codeagent.edge.problems import errors_of
from codeagent.errors import Rejected
from codeagent.identity.members import Member
from codeagent.identity.principal import Principal
from codeagent.identity.scopes import SCOPES_OF, Role
from codeagent.messages.ids import derived_uuid, typed_id

router = APIRouter(prefix="/v1", tags=["members"], responses=errors_of(400, 401, 403, 404, 422, 501, 503))


class MemberBody(Strict):
    """Somebody to add."""

    email: str = Field(max_length=254, examples=["ada@example.org"])
    role: Role


class RoleBody(Strict):
    role: Role


class MemberModel(BaseModel):
    """`password_change_required`: the password is a temporary one still."""

    id: str
    role: Role
    email: str | None
    password_change_required: bool
    created_at: datetime

    @classmethod
    def of(cls, member: Member) -> MemberModel:
        return cls(
            id=member.id,
            role=member.role,
            email=member.email,
            password_change_required=member.password_is_temporary,
            created_at=member.created_at,
        )


class NewMemberModel(MemberModel):
    """`temporary_password` is shown this once, and holds for three days; null in the answer to a repeat."""

    temporary_password: str | None


class MemberPage(BaseModel):
    """In the order of their ids. `next_cursor` continues the list; null at its end."""

    items: list[MemberModel]
    next_cursor: str | None


class RoleModel(BaseModel):
    """What a role permits, as scopes."""

    name: Role
    scopes: list[str]


class RoleList(BaseModel):
    items: list[RoleModel]


def check_rank(caller: Principal, *roles: Role) -> None:
    """Nobody makes or unmakes somebody who may do more than they may."""
    beyond = sorted({scope for role in roles for scope in SCOPES_OF[role]} - caller.scopes)
    if beyond:
        detail = f"The role may do {', '.join(beyond)}, and you may not."
        raise Rejected(detail, code="insufficient_scope", status=403)


def _answer(member: Member) -> Response:
    return answer(MemberModel.of(member), version=member.version, cache=NO_STORE)


@router.post(
    "/members",
    status_code=201,
    response_model=NewMemberModel,
    summary="Add a member",
    responses={200: {"model": NewMemberModel, "description": "A repeat: they were added before."}, **errors_of(409)},
)
async def add_member(
    body: MemberBody,
    caller: MemberWriter,
    users: Users,
    key: RequestKey = None,
) -> Response:
    """Makes a user with a temporary password, which is for you to pass on: it serves to choose another, and nothing
    else. Nobody is sent anything."""
    repeat = idempotency_key(key)
    check_rank(caller, body.role)
    user_id = typed_id("usr", derived_uuid(caller.tenant_id, caller.id, "POST /v1/members", repeat))
    added = await users.members.add(author_of(caller), user_id, body.email, body.role)
    shown = NewMemberModel(**MemberModel.of(added.member).model_dump(), temporary_password=added.temporary_password)
    repeated, location = added.temporary_password is None, f"/v1/members/{user_id}"
    return made(shown, location, repeated=repeated, version=added.member.version, cache=NO_STORE)


@router.get("/members", response_model=MemberPage, summary="List the members of the tenant")
async def list_members(
    caller: MemberWriter,
    users: Users,
    limit: Limit = 50,
    cursor: PageCursor = None,
) -> Response:
    """Its users, with their addresses; those who were removed are not among them."""
    found, following = await users.members.page(caller.tenant_id, cursor, limit)
    page = MemberPage(items=[MemberModel.of(member) for member in found], next_cursor=following)
    return page_answer(page, "/v1/members", limit=limit, cursor=following, cache=NO_STORE)


@router.get("/members/{user_id}", response_model=MemberModel, summary="A member of the tenant")
async def get_member(user_id: str, caller: MemberWriter, users: Users) -> Response:
    """With the ETag that changing them takes. It changes with their logins too."""
    return _answer(await users.members.find(caller.tenant_id, user_id))


@router.patch(
    "/members/{user_id}",
    response_model=MemberModel,
    summary="Change a member's role",
    responses={
        409: {"description": "It is the last owner (`last_owner`)."},
        **errors_of(412, 428),
    },
)
async def change_role(
    user_id: str, body: RoleBody, caller: MemberWriter, users: Users, if_match: IfMatch = None
) -> Response:
    """Whoever may do less afterwards has to log in again, within a second; their API keys follow within a minute."""
    member = await users.members.find(caller.tenant_id, user_id)
    check_match(if_match, member.version)
    check_rank(caller, member.role, body.role)
    if body.role is not member.role:
        await users.members.change_role(author_of(caller), member, body.role)
        member = await users.members.find(caller.tenant_id, user_id)
    return _answer(member)


@router.delete(
    "/members/{user_id}",
    status_code=204,
    summary="Remove a member for good",
    responses={
        409: {"description": "It is the last owner (`last_owner`)."},
        **errors_of(412, 428),
    },
)
async def remove_member(user_id: str, caller: MemberWriter, users: Users, if_match: IfMatch = None) -> Response:
    """Every edge refuses their logins and API keys within a second. Their address is forgotten, under a legal hold once
    that is lifted, and may be added again as somebody new; what they did stays in the log under their id."""
    member = await users.members.find(caller.tenant_id, user_id)
    check_match(if_match, member.version)
    check_rank(caller, member.role)
    await users.members.remove(author_of(caller), member)
    return Response(status_code=204)


@router.get("/roles", response_model=RoleList, summary="Which roles there are")
async def list_roles(caller: Caller) -> Response:
    """What each of them permits. A token or key never does more than its user's role."""
    roles = RoleList(items=[RoleModel(name=role, scopes=sorted(SCOPES_OF[role])) for role in Role])
    return answer(roles)
