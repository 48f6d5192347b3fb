"""`/v1/runs/{run_id}/state` and `/changes`: a run as it was, and what became of it between two of its versions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from codeagent.edge.answers import PRIVATE
from codeagent.edge.context import Context, EdgeContext, RunReader
from codeagent.edge.models import RunModel
from codeagent.edge.preconditions import etag
from codeagent.edge.problems import errors_of
from codeagent.edge.state_models import RunChanges
from codeagent.projections.view import RunView

router = APIRouter(prefix="/v1/runs/{run_id}", tags=["runs"], responses=errors_of(400, 401, 403, 404, 422, 503))

MOST_VERSIONS = 2**63 - 1
"""What the database's type can hold."""
Version = Annotated[int, Query(ge=1, le=MOST_VERSIONS, description="A version: the number of events until then.")]
Newest = Annotated[
    int | None, Query(ge=1, le=MOST_VERSIONS, description="A version; the newest one where it is not given.")
]


@router.get("/state", response_model=RunModel, summary="A run as it was at a version")
async def get_run_state(run_id: str, context: Context, caller: RunReader, at: Newest = None) -> Response:
    """The run after its first `at` events, which is what it was seen as then. A version that it does not have yet is
    400 `cursor_past_head`. What a version was stays what it was."""
    view = await context.views.at(caller.tenant_id, run_id, at)
    return _json(await _shown(context, view), {"ETag": etag(view.version)})


@router.get("/changes", response_model=RunChanges, summary="What has changed between two versions of a run")
async def get_run_changes(
    run_id: str,
    context: Context,
    caller: RunReader,
    since: Version = 1,
    until: Newest = None,
) -> Response:
    """Every field of the run that differs, as it was after `since` events and after `until`, in whichever order they
    are. What happened in between is in `/events`."""
    before = await context.views.at(caller.tenant_id, run_id, since)
    after = await context.views.at(caller.tenant_id, run_id, until)
    return _json(RunChanges.between(await _shown(context, before), await _shown(context, after)), {})


async def _shown(context: EdgeContext, view: RunView) -> RunModel:
    return RunModel.of(view, await context.views.reason(view))


def _json(model: RunModel | RunChanges, headers: dict[str, str]) -> Response:
    told = {"Cache-Control": PRIVATE, **headers}
    return Response(model.model_dump_json(), 200, told, media_type="application/json")
