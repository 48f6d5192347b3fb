"""`/v1/runs/{run_id}/replays`: go on with a run that has ended, as another version of its agent."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from codeagent.edge.context import Context, RunWriter
from codeagent.edge.models import RunModel
from codeagent.edge.parameters import IDEMPOTENCY_KEY, PREFER, taking
from codeagent.edge.problems import errors_of
from codeagent.edge.replayed import ReplayBody, ReplayOrder
from codeagent.edge.runs import SUBMITTED, submitted

router = APIRouter(prefix="/v1/runs/{run_id}", tags=["runs"], responses=errors_of(400, 401, 403, 404, 422, 503))


@router.post(
    "/replays",
    status_code=202,
    response_model=RunModel,
    response_description="The new run, accepted.",
    summary="Go on with a run that has ended",
    openapi_extra=taking(IDEMPOTENCY_KEY, PREFER),
    responses={
        **SUBMITTED,
        409: {
            "description": "The run has not ended (`run_not_ended`); its conversation was replayed too often "
            "(`too_many_replays`); its project takes no runs (`project_archived`)."
        },
        410: {
            "description": "What was said in the run, or in one that it replayed, was erased (`erased`); its files or "
            "arguments are not kept any more (`artifact_gone`)."
        },
    },
)
async def replay_run(run_id: str, body: ReplayBody, request: Request, context: Context, caller: RunWriter) -> Response:
    """Starts another run: with the task of this one, its conversation up to `until_version` and its files of that
    moment, and with the instructions, tools, model and limits of the version that `agent` names. This run stays as it
    is. The same answer, headers and rules as `POST /v1/runs`; limits count what the new run uses itself.

    Every tool call must be answered at `until_version`, and the run not yet about to end (`conversation_not_whole`).
    """
    await context.views.get(caller.tenant_id, run_id)
    return await submitted(request, caller, ReplayOrder(run_id, body), f"POST /v1/runs/{run_id}/replays")
