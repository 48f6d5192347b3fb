"""`/v1/audit`: the proof of the log, as texts that need nothing of ours to be verified."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse, Response

from codeagent.edge.answers import NO_STORE
from codeagent.edge.audit_models import ConsistencyModel
from codeagent.edge.authors import author_of
from codeagent.edge.context import AuditReader, Context
from codeagent.edge.examples.evidence import CHECKPOINT, LOG_PROOF, VERIFIER_KEY
from codeagent.edge.problems import errors_of
from codeagent.errors import InvalidInput, NotFound
from codeagent.projections.audit_reads import AuditReads
from codeagent.transparency.lookup import LogLookup

router = APIRouter(prefix="/v1/audit", tags=["audit"], responses=errors_of(400, 401, 403, 404, 422, 503))
_NO_STORE = {"Cache-Control": NO_STORE}


def _text(example: str) -> dict[int | str, dict[str, object]]:
    return {200: {"content": {"text/plain": {"schema": {"type": "string"}, "example": example}}}}


@router.get(
    "/checkpoint",
    summary="The newest checkpoint of the log",
    response_class=PlainTextResponse,
    response_description="A signed note, as c2sp.org/tlog-checkpoint.",
    responses=_text(CHECKPOINT),
)
async def get_checkpoint(context: Context, caller: AuditReader) -> Response:
    """Name, number of entries and root of the Merkle log over all events of the installation, signed. Keep one where
    nobody of the installation can change it: whatever it covers cannot be changed any more without being found."""
    newest = await LogLookup(context.database).newest()
    return PlainTextResponse(newest.note, headers=_NO_STORE)


@router.get(
    "/keys",
    summary="The keys that sign the log",
    response_class=PlainTextResponse,
    response_description="Verifier keys, one a line, as c2sp.org/signed-note.",
    responses=_text(VERIFIER_KEY),
)
async def list_log_keys(context: Context, caller: AuditReader) -> Response:
    """Every key that checkpoints have been signed with. Compare them with what the operator has told you another way:
    who could change the log could change this list."""
    return PlainTextResponse(await LogLookup(context.database).keys(), headers=_NO_STORE)


@router.get(
    "/events/{event_id}/proof",
    summary="The proof that an event is in the log",
    response_class=PlainTextResponse,
    response_description="A proof, as c2sp.org/tlog-proof@v1.",
    responses={**_text(LOG_PROOF), **errors_of(409)},
)
async def get_proof(event_id: str, context: Context, caller: AuditReader) -> Response:
    """That the event with this id and its `leafhash` is an entry of the log that the newest checkpoint covers. Events
    are sealed within a second or two; before that it is `not_sealed_yet`. That it was read is written down."""
    try:
        wanted = UUID(event_id)
    except ValueError:
        raise NotFound("There is no such event.") from None
    proof = await LogLookup(context.database).proof(caller.tenant_id, wanted)
    await AuditReads(context.database).record(author_of(caller), "proof", {"event_id": str(wanted)})
    return PlainTextResponse(str(proof), headers=_NO_STORE)


@router.get("/consistency", response_model=ConsistencyModel, summary="The proof that the log only grew")
async def get_consistency(
    context: Context,
    caller: AuditReader,
    old: Annotated[int, Query(alias="from", ge=1, le=1 << 53, description="Entries of the older checkpoint.")],
    new: Annotated[int, Query(alias="to", ge=1, le=1 << 53, description="Entries of the newer one.")],
) -> Response:
    """The hashes that lead from the root of the older checkpoint to that of the newer one, as RFC 9162 section 2.1.4
    verifies them."""
    if old > new:
        raise InvalidInput("The older log is not longer.", pointer="query:to")
    hashes = await LogLookup(context.database).consistency(old, new)
    model = ConsistencyModel.of(old, new, hashes)
    return Response(model.model_dump_json(by_alias=True), headers=_NO_STORE, media_type="application/json")
