"""`/v1/artifacts`: archives in, patches and outputs out, each named by the digest of its bytes."""

from __future__ import annotations

import asyncio
import base64
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response, StreamingResponse

from codeagent.artifacts.archive import ArchiveLimits, normalise
from codeagent.artifacts.disk import explained
from codeagent.edge.artifact_models import ArtifactModel, ArtifactPage, UploadModel
from codeagent.edge.context import Context, RunReader, RunWriter
from codeagent.edge.parameters import IF_NONE_MATCH, taking
from codeagent.edge.preconditions import etag, not_modified
from codeagent.edge.problems import problem
from codeagent.edge.traffic.exchange import exchange_of
from codeagent.errors import NotFound, Rejected

router = APIRouter(prefix="/v1", tags=["artifacts"])
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_UPLOADS = asyncio.Semaphore(4)


@router.post(
    "/artifacts",
    status_code=201,
    response_model=UploadModel,
    response_description="The archive, as it was taken in.",
    summary="Upload a source archive",
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "A .tar, .tar.gz or .zip.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload(request: Request, context: Context, caller: RunWriter) -> Response:
    """Takes a .tar, .tar.gz or .zip as the raw body and keeps it as a plain archive: files, directories and links
    that stay inside. `.git` directories are left out. The answer names the digest to start runs from."""
    with explained(), tempfile.TemporaryDirectory(prefix="codeagent-upload-") as folder:
        received, plain = Path(folder) / "upload", Path(folder) / "plain.tar.gz"
        await _receive(request.stream(), received, context.policy.max_upload_bytes)
        async with _UPLOADS:
            summary = await asyncio.to_thread(normalise, received, plain, ArchiveLimits())
        digest, size = await context.store.put_file(caller.tenant_id, plain)
    model = UploadModel(
        digest=digest, size_bytes=size, files=summary.files, dropped=summary.dropped, href=f"/v1/artifacts/{digest}"
    )
    return Response(
        model.model_dump_json(), 201, {"Location": f"/v1/artifacts/{digest}"}, media_type="application/json"
    )


async def _receive(chunks: AsyncIterator[bytes], path: Path, limit: int) -> None:
    size = 0
    file = await asyncio.to_thread(path.open, "wb")
    try:
        async for chunk in chunks:
            size += len(chunk)
            if size > limit:
                raise Rejected(f"The upload is larger than {limit} bytes.", code="payload_too_large", status=413)
            await asyncio.to_thread(file.write, chunk)
    finally:
        await asyncio.to_thread(file.close)


@router.get(
    "/runs/{run_id}/artifacts",
    response_model=ArtifactPage,
    response_description="The run's artifacts, oldest first.",
    summary="List a run's artifacts",
)
async def run_artifacts(run_id: str, context: Context, caller: RunReader) -> Response:
    """As they stand in the run: none before it has collected its patch."""
    view = await context.views.get(caller.tenant_id, run_id)
    page = ArtifactPage(items=[ArtifactModel.of(artifact) for artifact in view.artifacts])
    headers = {"ETag": etag(view.version), "Cache-Control": "private, no-cache"}
    return Response(page.model_dump_json(), 200, headers, media_type="application/json")


@router.get(
    "/artifacts/{digest}",
    summary="Download an artifact",
    response_class=Response,
    response_description="All bytes.",
    openapi_extra=taking(IF_NONE_MATCH),
    responses={
        200: {"content": {"application/octet-stream": {"example": "diff --git a/inventory/orders.py ..."}}},
        206: {"description": "The bytes of the range.", "content": {"application/octet-stream": {}}},
        304: {"description": "The client has it already."},
        416: {},
    },
)
async def download(
    digest: str,
    request: Request,
    context: Context,
    caller: RunReader,
    byte_range: Annotated[
        str | None, Header(alias="Range", max_length=100, description="As in `bytes=0-1023`; one range.")
    ] = None,
) -> Response:
    """The bytes, whole or in part (`Range`). They never change, so they may be cached for ever."""
    if re.fullmatch(r"sha256:[0-9a-f]{64}", digest) is None:
        raise NotFound("There is no such artifact.")
    size = await context.store.size(caller.tenant_id, digest)
    if size is None:
        raise NotFound("There is no such artifact.")
    raw = base64.b64encode(bytes.fromhex(digest.removeprefix("sha256:"))).decode()
    headers = {
        "ETag": f'"{digest}"',
        "Repr-Digest": f"sha-256=:{raw}:",
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": "attachment",
    }
    if not_modified(exchange_of(request).header(b"if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    start, end, status = _span(byte_range, size)
    if status == 416:
        detail = f"The artifact has {size} bytes."
        return problem(416, "range_not_satisfiable", detail, headers={"Content-Range": f"bytes */{size}"})
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    chunks = await context.store.open_range(caller.tenant_id, digest, start, end)
    return StreamingResponse(chunks, status, headers, media_type="application/octet-stream")


def _span(header: str | None, size: int) -> tuple[int, int, int]:
    """Start, end (exclusive) and status. A header that is not understood is ignored, as RFC 9110 asks."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.group(1) == match.group(2) == "":
        return 0, size, 200
    first, last = match.groups()
    if first == "":
        length = min(int(last), size)
        return (size - length, size, 206) if length else (0, 0, 416)
    start, end = int(first), min(int(last) + 1, size) if last else size
    if start >= size or end <= start:
        return 0, 0, 416
    return start, end, 206
