"""`/v1/admin/dead-letters`: records that no consumer could handle, for operators to send again or to discard."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from codeagent.dead_letters.letter import LetterState
from codeagent.dead_letters.tables import LetterFilter
from codeagent.edge.answers import NO_STORE, answer
from codeagent.edge.authors import operator_of
from codeagent.edge.context import Context, Operator
from codeagent.edge.dead_letter_models import DeadLetterModel, DeadLetterPage, DiscardBody, RedriveBody
from codeagent.edge.moments import Moment
from codeagent.edge.pages import Limit, PageCursor, page_answer
from codeagent.edge.parameters import IfMatch
from codeagent.edge.preconditions import check_match
from codeagent.edge.problems import errors_of

PATH = "/v1/admin/dead-letters"
router = APIRouter(prefix=PATH, tags=["administration"], responses=errors_of(400, 401, 403, 404, 422, 503))
_NAME = r"^[A-Za-z0-9_.-]{1,200}$"


async def get_filter(
    topic: Annotated[str | None, Query(pattern=_NAME, description="The topic that it failed on.")] = None,
    state: Annotated[LetterState | None, Query(description="What has become of it.")] = None,
    error_type: Annotated[
        str | None, Query(pattern=_NAME, description="Code or class of the error.", examples=["invalid_payload"])
    ] = None,
    since: Annotated[Moment | None, Query(description="Those that failed from this moment on.")] = None,
) -> LetterFilter:
    return LetterFilter(topic, state, error_type, since)


@router.get("", response_model=DeadLetterPage, summary="List dead letters, newest first")
async def list_dead_letters(
    context: Context,
    caller: Operator,
    wanted: Annotated[LetterFilter, Depends(get_filter)],
    limit: Limit = 50,
    cursor: PageCursor = None,
) -> Response:
    """Of all topics and tenants, without what the records hold. They are kept for 30 days."""
    found, following = await context.dead_letters.page(wanted, cursor, limit)
    page = DeadLetterPage(items=[DeadLetterModel.of(letter) for letter in found], next_cursor=following)
    return page_answer(
        page,
        PATH,
        topic=wanted.topic,
        state=wanted.state,
        error_type=wanted.error_type,
        since=wanted.since,
        limit=limit,
        cursor=following,
        cache=NO_STORE,
    )


@router.get("/{letter_id}", response_model=DeadLetterModel, summary="One dead letter", responses=errors_of(409, 501))
async def get_dead_letter(
    letter_id: str,
    context: Context,
    caller: Operator,
    include: Annotated[
        Literal["value"] | None, Query(description="Also what the record holds, which may be a tenant's content.")
    ] = None,
) -> Response:
    """With the ETag that acts on it take. Whoever includes its value is written down with that, as
    `dead_letter.read`."""
    letter = await context.dead_letters.find(letter_id)
    content = None if include is None else await context.dead_letters.read(operator_of(caller), letter)
    return answer(DeadLetterModel.of(letter, content), version=letter.version, cache=NO_STORE)


@router.post(
    "/{letter_id}/redrive",
    status_code=202,
    response_model=DeadLetterModel,
    summary="Send a dead letter again",
    responses=errors_of(409, 412, 428, 501),
)
async def redrive_dead_letter(
    letter_id: str,
    context: Context,
    caller: Operator,
    if_match: IfMatch = None,
    body: RedriveBody | None = None,
) -> Response:
    """The same bytes, key and headers go to the topic that it failed on, within a second or so. Consumers recognise
    what they have handled. One that was sent before is sent only with `again`."""
    letter = await context.dead_letters.find(letter_id)
    check_match(if_match, letter.version)
    again = body is not None and body.again
    sent = await context.dead_letters.redrive(operator_of(caller), letter, again=again)
    return answer(DeadLetterModel.of(sent), 202, version=sent.version, cache=NO_STORE)


@router.post(
    "/{letter_id}/discard",
    response_model=DeadLetterModel,
    summary="Discard a dead letter",
    responses=errors_of(412, 428),
)
async def discard_dead_letter(
    letter_id: str, body: DiscardBody, context: Context, caller: Operator, if_match: IfMatch = None
) -> Response:
    """For good: the installation forgets what the record holds. That it was there, and why it is gone, stays. One that
    is discarded already stays as it is."""
    letter = await context.dead_letters.find(letter_id)
    check_match(if_match, letter.version)
    gone = await context.dead_letters.discard(operator_of(caller), letter, body.reason)
    return answer(DeadLetterModel.of(gone), version=gone.version, cache=NO_STORE)
