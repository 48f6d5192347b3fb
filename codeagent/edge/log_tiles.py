"""`/v1/audit/log`: the Merkle log as the static files that c2sp.org/tlog-tiles names, for programs that follow logs.

It is the log of the whole installation, so that it takes an operator's credential. Entries themselves are not served:
they name tenants and streams, and hashes do not.
"""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

from codeagent.edge.answers import NO_STORE
from codeagent.edge.context import Context, LogAuditor
from codeagent.edge.examples.evidence import CHECKPOINT
from codeagent.edge.problems import errors_of
from codeagent.errors import NotFound
from codeagent.transparency.lookup import LogLookup
from codeagent.transparency.tiles import parse_path

PATH = "/v1/audit/log"
router = APIRouter(prefix=PATH, tags=["audit"], responses=errors_of(400, 401, 403, 404, 422, 503))
_BYTES = {"type": "string", "format": "binary"}
_FOR_GOOD = "private, max-age=31536000, immutable"
"""A tile of a width never has other hashes. Not for caches that several share: whoever asks has shown a credential."""


@router.get(
    "/checkpoint",
    summary="The newest checkpoint, beside its tiles",
    response_class=PlainTextResponse,
    response_description="A signed note, as c2sp.org/tlog-checkpoint.",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}, "example": CHECKPOINT}}}},
)
async def get_log_checkpoint(context: Context, caller: LogAuditor) -> Response:
    """As `/v1/audit/checkpoint`. The tiles beside it hold every hash of the tree that it signs."""
    newest = await LogLookup(context.database).newest()
    return PlainTextResponse(newest.note, headers={"Cache-Control": NO_STORE})


@router.get(
    "/tile/{level}/{tile:path}",
    summary="A tile of the log",
    response_class=Response,
    response_description="Hashes of 32 bytes, one after the other: 256, or as many as a partial tile has.",
    responses={200: {"content": {"application/octet-stream": {"schema": _BYTES, "example": "(32 bytes a hash)"}}}},
)
async def get_log_tile(level: str, tile: str, context: Context, caller: LogAuditor) -> Response:
    """Paths are those of c2sp.org/tlog-tiles: `0/x001/x234/067` is tile 1234067 of the leaf hashes, `1/000.p/17` the
    first 17 hashes of the level above. Partial tiles stay when the full one is there. What the log does not reach is
    404, and so is `entries`."""
    wanted = parse_path(f"{level}/{tile}")
    if wanted is None:
        raise NotFound("There is no such tile.")
    hashes = await LogLookup(context.database).tile(wanted)
    return Response(hashes, headers={"Cache-Control": _FOR_GOOD}, media_type="application/octet-stream")
