"""`/v1/members/{user_id}/sessions` and `/password`: how others help a member who was robbed, or forgets."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel

from codeagent.edge.answers import NO_STORE, answer
from codeagent.edge.authors import author_of
from codeagent.edge.context import MemberWriter, Users
from codeagent.edge.members import check_rank
from codeagent.edge.problems import errors_of
from codeagent.errors import Rejected

router = APIRouter(
    prefix="/v1/members/{user_id}", tags=["members"], responses=errors_of(400, 401, 403, 404, 422, 501, 503)
)


class TemporaryPasswordModel(BaseModel):
    """Shown this once. It holds for three days, and serves to choose another password."""

    temporary_password: str


@router.delete("/sessions", status_code=204, summary="End all logins of a member")
async def end_logins(user_id: str, caller: MemberWriter, users: Users) -> Response:
    """Every edge refuses them within a second. The member may log in again, and their API keys stay."""
    member = await users.members.find(caller.tenant_id, user_id)
    check_rank(caller, member.role)
    await users.members.end_logins(author_of(caller), member)
    return Response(status_code=204)


@router.post(
    "/password",
    response_model=TemporaryPasswordModel,
    summary="Replace a member's password by a temporary one",
    responses={409: {"description": "It is your own (`own_password`)."}},
)
async def reset_password(user_id: str, caller: MemberWriter, users: Users) -> Response:
    """For one who has forgotten theirs: you are told the temporary one, to pass on. All their logins end within a
    second; their API keys stay. Your own is changed by `POST /v1/auth/password`, which takes the one that you have."""
    member = await users.members.find(caller.tenant_id, user_id)
    check_rank(caller, member.role)
    if member.id == caller.id:
        raise Rejected("Change your own password with the one that you have.", code="own_password", status=409)
    password = await users.members.reset_password(author_of(caller), member)
    return answer(TemporaryPasswordModel(temporary_password=password), cache=NO_STORE)
