"""`/v1/runs/{run_id}/approvals`: what a run asks a person, and the answer."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from codeagent import clock
from codeagent.cursors import malformed_cursor
from codeagent.edge import preferences
from codeagent.edge.accept import accept_answer, answer_id, idempotency_key
from codeagent.edge.answers import answer
from codeagent.edge.approval_models import ApprovalModel, ApprovalPage
from codeagent.edge.context import ApprovalWriter, Context, EdgeContext, RunReader
from codeagent.edge.models import AnswerBody
from codeagent.edge.pages import Limit, page_answer
from codeagent.edge.parameters import IDEMPOTENCY_KEY, IF_MATCH_REQUIRED, PREFER, taking
from codeagent.edge.preconditions import check_match, required
from codeagent.edge.preferences import Preferences
from codeagent.edge.traffic.exchange import exchange_of
from codeagent.edge.waiting import until
from codeagent.errors import Conflict, InvalidInput, NotFound
from codeagent.projections.approvals import Approval
from codeagent.projections.view import RunView
from codeagent.telemetry import metrics

router = APIRouter(prefix="/v1/runs/{run_id}/approvals", tags=["approvals"])


@router.get(
    "", response_model=ApprovalPage, response_description="A page of approvals.", summary="List a run's approvals"
)
async def list_approvals(
    run_id: str,
    context: Context,
    caller: RunReader,
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(max_length=40)] = None,
) -> Response:
    """What the run has asked, newest first, answered or not. At most one waits for an answer, and it is the first."""
    view = await context.views.get(caller.tenant_id, run_id)
    known = view.approvals.newest_first()
    begin = 0
    if cursor is not None:
        places = {approval.request.approval_id: place for place, approval in enumerate(known, start=1)}
        if cursor not in places:
            raise malformed_cursor()
        begin = places[cursor]
    shown = known[begin : begin + limit]
    following = shown[-1].request.approval_id if begin + limit < len(known) else None
    comments = await asyncio.gather(*(context.views.comment(view, approval) for approval in shown))
    items = [ApprovalModel.of(run_id, *each) for each in zip(shown, comments, strict=True)]
    page = ApprovalPage(items=items, next_cursor=following)
    return page_answer(page, f"/v1/runs/{run_id}/approvals", limit=limit, cursor=following, version=view.version)


@router.get(
    "/{approval_id}", response_model=ApprovalModel, response_description="The approval.", summary="Look at an approval"
)
async def get_approval(run_id: str, approval_id: str, context: Context, caller: RunReader) -> Response:
    """What is asked, and what became of it. The ETag is that of the run, which an answer has to name."""
    view = await context.views.get(caller.tenant_id, run_id)
    return await _answer(context, view, _found(view, approval_id), 200)


@router.post(
    "/{approval_id}",
    status_code=202,
    response_model=ApprovalModel,
    response_description="The approval, as it is before the answer has reached the run.",
    summary="Allow or reject what a run asks",
    openapi_extra=taking(IDEMPOTENCY_KEY, IF_MATCH_REQUIRED, PREFER),
    responses={
        200: {"description": "The approval with this answer, which the run has taken.", "model": ApprovalModel},
        409: {"description": "It is answered already, has expired, or the run has ended (`invalid_state_transition`)."},
        412: {"description": "The run has moved on since the version that If-Match names."},
        422: {"description": "A field cannot be accepted, or the Idempotency-Key was used for another answer."},
        428: {"description": "If-Match is required."},
    },
)
async def answer_approval(
    run_id: str, approval_id: str, body: AnswerBody, request: Request, context: Context, caller: ApprovalWriter
) -> Response:
    """Passes the answer on. Of several, the first to reach the run counts: `run.input_received` names it.

    With `Prefer: wait=5` the answer to this request says whether yours did: 200 if so, 409 if another came first.
    If-Match names the run's version, so that nobody answers what they have not seen.
    """
    exchange = exchange_of(request)
    key = idempotency_key(exchange.header(b"idempotency-key"))
    decided_on = required(exchange.header(b"if-match"))
    wanted = Preferences(preferences.parse(request.headers.getlist("prefer")).wait_seconds)
    view = await context.views.get(caller.tenant_id, run_id)
    approval = _found(view, approval_id)
    command_id = str(answer_id(caller, run_id, approval_id, key))
    if approval.command_id == command_id:
        return await _repeated(context, view, approval, body)
    _check_open(approval)
    check_match(decided_on, view.version)
    await accept_answer(context, caller, view, approval_id, body, key)
    if wanted.wait_seconds:
        settled = partial(_settled, approval_id=approval_id)
        view = await until(settled, context, exchange, caller, view, wanted.wait_seconds)
        approval = _found(view, approval_id)
        if not approval.pending and approval.command_id != command_id:
            raise _too_late(approval)
    return await _answer(context, view, approval, 202 if approval.pending else 200, applied=wanted.applied())


def _found(view: RunView, approval_id: str) -> Approval:
    approval = view.approvals.find(approval_id)
    if approval is None:
        raise NotFound("There is no such approval.")
    return approval


def _settled(view: RunView, approval_id: str) -> bool:
    return not _found(view, approval_id).pending


def _check_open(approval: Approval) -> None:
    if not approval.pending:
        raise _too_late(approval)
    if clock.now() >= approval.request.expires_at:
        raise Conflict("The approval has expired.", code="invalid_state_transition")


def _too_late(approval: Approval) -> Conflict:
    return Conflict(
        f"The approval waits for no answer any more: it is {approval.status}.", code="invalid_state_transition"
    )


async def _repeated(context: EdgeContext, view: RunView, approval: Approval, body: AnswerBody) -> Response:
    """The answer under this Idempotency-Key is in the log."""
    if (approval.decision, await context.views.comment(view, approval)) != (body.decision, body.comment):
        raise InvalidInput("This Idempotency-Key was used for another answer.", code="idempotency_key_reused")
    metrics.IDEMPOTENCY_REPLAYS.inc()
    return await _answer(context, view, approval, 200, repeated=True)


async def _answer(
    context: EdgeContext,
    view: RunView,
    approval: Approval,
    status: int,
    *,
    applied: str = "",
    repeated: bool = False,
) -> Response:
    headers: dict[str, str] = {}
    if applied:
        headers |= {"Preference-Applied": applied, "Vary": "Prefer"}
    if repeated:
        headers["Idempotent-Replayed"] = "true"
    model = ApprovalModel.of(view.run_id, approval, await context.views.comment(view, approval))
    return answer(model, status, version=view.version, headers=headers)
