"""`/v1/privacy/holds`: whose content has to be kept, whatever else is asked."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from codeagent.edge.answers import NO_STORE, answer
from codeagent.edge.authors import author_of
from codeagent.edge.context import Context, PrivacyOfficer
from codeagent.edge.pages import Limit, PageCursor, page_answer
from codeagent.edge.privacy_models import HoldModel, HoldPage
from codeagent.edge.problems import errors_of
from codeagent.privacy.holds import Holds

router = APIRouter(prefix="/v1/privacy/holds", tags=["privacy"], responses=errors_of(400, 401, 403, 404, 422, 503))


@router.get("", response_model=HoldPage, summary="List legal holds, newest first")
async def list_holds(
    context: Context, caller: PrivacyOfficer, limit: Limit = 50, cursor: PageCursor = None
) -> Response:
    """Those that were lifted are in the audit."""
    found, following = await Holds(context.database).page(caller.tenant_id, cursor, limit)
    page = HoldPage(items=[HoldModel.of(hold) for hold in found], next_cursor=following)
    return page_answer(page, "/v1/privacy/holds", limit=limit, cursor=following, cache=NO_STORE)


@router.put("/{user_id}", response_model=HoldModel, summary="Place a user under a legal hold")
async def place_hold(user_id: str, context: Context, caller: PrivacyOfficer) -> Response:
    """From here on neither an erasure nor a retention removes content of theirs. An erasure that has begun stops,
    unless their key is shredded already; what it has removed by then stays so. A repeat changes nothing."""
    hold = await Holds(context.database).place(author_of(caller), user_id)
    return answer(HoldModel.of(hold), cache=NO_STORE)


@router.delete("/{user_id}", status_code=204, summary="Lift the legal hold of a user")
async def lift_hold(user_id: str, context: Context, caller: PrivacyOfficer) -> Response:
    """An erasure that waits for it goes on within seconds, a retention within a minute or two."""
    await Holds(context.database).lift(author_of(caller), user_id)
    return Response(status_code=204)
