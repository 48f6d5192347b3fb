"""`/v1/runs/{run_id}/calls`: what a run has asked models, as far as facts tell."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from codeagent.cursors import malformed_cursor, page_of
from codeagent.edge.call_models import CallModel, CallPage
from codeagent.edge.context import Context, RunReader
from codeagent.edge.pages import Limit, PageCursor, page_answer
from codeagent.edge.problems import errors_of
from codeagent.projections.calls import calls_of_run

router = APIRouter(prefix="/v1/runs/{run_id}", tags=["runs"], responses=errors_of(400, 401, 403, 404, 422, 503))

MOST_VERSIONS = 2**63 - 1
"""What the database's type can hold."""


@router.get("/calls", response_model=CallPage, summary="The model calls of a run")
async def get_run_calls(
    run_id: str, context: Context, caller: RunReader, limit: Limit = 50, cursor: PageCursor = None
) -> Response:
    """In the order in which the run made them: every attempt with what it used and the price it was counted by, changes
    of the model, how the call ended and how long it took. There are digests of what was asked and replied; where
    the installation records calls, `/v1/artifacts/{digest}` has the text."""
    after = _place(cursor)
    view = await context.views.get(caller.tenant_id, run_id)
    found = await calls_of_run(context.database, caller.tenant_id, view.run_id, after=after, limit=limit + 1)
    calls, following = page_of(found, limit, lambda call: str(call.place))
    page = CallPage(items=[CallModel.of(call) for call in calls], next_cursor=following)
    return page_answer(page, f"/v1/runs/{run_id}/calls", limit=limit, cursor=following)


def _place(cursor: str | None) -> int:
    """Raises `malformed_cursor`."""
    if not cursor:
        return 0
    if not cursor.isdecimal() or not cursor.isascii() or int(cursor) > MOST_VERSIONS:
        raise malformed_cursor()
    return int(cursor)
