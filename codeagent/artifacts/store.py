"""Where big bytes live: immutable artifacts, named by their SHA-256, in a namespace of their own for each tenant."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar, Protocol

from codeagent.artifacts.blobs import BlobFiles, Incoming, digest_of
from codeagent.artifacts.threads import in_thread
from codeagent.errors import CodeAgentError, NotFound, Rejected
from codeagent.telemetry.logs import get_logger

CHUNK_BYTES = 64 << 10
_BATCH_BYTES = 256 << 10

log = get_logger(__name__)


class ArtifactCorrupt(CodeAgentError):
    """The stored bytes are no longer those the digest names. Putting the content again heals it."""

    code: ClassVar[str] = "artifact_corrupt"


class ArtifactStore(Protocol):
    """Blobs by tenant and digest (`sha256:` and 64 hexadecimal digits).

    What a `put` has returned is complete and durable; putting it again changes nothing. Reading what another tenant
    put, or what is no digest, raises `NotFound`. Every method may raise `Unavailable`: `storage_full` when there
    is no room, else `storage_unavailable`.
    """

    async def start(self) -> None:
        """Makes the store ready and removes what killed writers left behind. Called once by every process."""
        ...

    async def put(self, tenant_id: str, data: bytes) -> str:
        """The digest."""
        ...

    async def put_file(self, tenant_id: str, path: Path) -> tuple[str, int]:
        """The digest and the size in bytes. The store takes the file: `path` is gone after success, and only then."""
        ...

    async def put_stream(self, tenant_id: str, chunks: AsyncIterator[bytes], limit_bytes: int) -> tuple[str, int]:
        """The digest and the size in bytes. Raises `Rejected` (413 `payload_too_large`) as soon as there are more
        than `limit_bytes`. Nothing stays behind unless the stream came to its end."""
        ...

    async def size(self, tenant_id: str, digest: str) -> int | None:
        """In bytes; None when there is no such artifact."""
        ...

    async def exists(self, tenant_id: str, digest: str) -> bool: ...

    async def read(self, tenant_id: str, digest: str, limit_bytes: int | None = None) -> bytes:
        """All bytes, verified. Raises `Rejected` (413 `payload_too_large`) when there are more than `limit_bytes`,
        `ArtifactCorrupt`, `NotFound`."""
        ...

    async def open_range(self, tenant_id: str, digest: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` up to, not including, `end` (or the artifact's end, if that comes first), in chunks
        of at most 64 KiB. Nothing is held open between chunks.

        Raises at once, before the first chunk: `NotFound`; `Rejected` (416 `range_not_satisfiable`) unless
        0 <= start <= end and start <= size. While iterating: `ArtifactCorrupt`, before the last chunk of the whole
        artifact if it does not match its digest.
        """
        ...

    async def path(self, tenant_id: str, digest: str) -> Path:
        """A local file with these bytes, to be read only; a remote store downloads it first. Raises `NotFound`."""
        ...


class LocalArtifactStore:
    """Artifacts on a local disk, at `root/<tenant>/sha256/ab/<hex>`; any number of processes may share `root`."""

    def __init__(self, root: Path) -> None:
        self._files = BlobFiles(root)

    async def start(self) -> None:
        removed = await in_thread(self._files.prepare)
        if removed:
            log.info("abandoned_uploads_removed", count=removed)

    async def put(self, tenant_id: str, data: bytes) -> str:
        return await in_thread(self._files.put, tenant_id, data)

    async def put_file(self, tenant_id: str, path: Path) -> tuple[str, int]:
        return await in_thread(self._files.put_file, tenant_id, path)

    async def put_stream(self, tenant_id: str, chunks: AsyncIterator[bytes], limit_bytes: int) -> tuple[str, int]:
        incoming = self._files.incoming(tenant_id)
        try:
            await self._receive(incoming, chunks, limit_bytes)
            return await in_thread(self._files.settle, tenant_id, incoming)
        finally:
            await in_thread(incoming.discard)

    async def _receive(self, incoming: Incoming, chunks: AsyncIterator[bytes], limit_bytes: int) -> None:
        batch = bytearray()
        async for chunk in chunks:
            if incoming.size + len(batch) + len(chunk) > limit_bytes:
                raise Rejected(f"more than {limit_bytes} bytes", code="payload_too_large", status=413)
            batch += chunk
            if len(batch) >= _BATCH_BYTES:
                await in_thread(self._files.receive, incoming, bytes(batch))
                batch.clear()
        await in_thread(self._files.receive, incoming, bytes(batch))

    async def size(self, tenant_id: str, digest: str) -> int | None:
        return await in_thread(self._files.size, tenant_id, digest)

    async def exists(self, tenant_id: str, digest: str) -> bool:
        return await self.size(tenant_id, digest) is not None

    async def read(self, tenant_id: str, digest: str, limit_bytes: int | None = None) -> bytes:
        return await in_thread(self._read, tenant_id, digest, limit_bytes)

    def _read(self, tenant_id: str, digest: str, limit_bytes: int | None) -> bytes:
        data = self._files.read(tenant_id, digest, limit_bytes)
        if digest_of(data) != digest:
            raise _corrupt(digest)
        return data

    async def open_range(self, tenant_id: str, digest: str, start: int, end: int) -> AsyncIterator[bytes]:
        size = await self.size(tenant_id, digest)
        if size is None:
            raise NotFound("no such artifact")
        if not 0 <= start <= end or start > size:
            raise Rejected(f"the artifact has {size} bytes", code="range_not_satisfiable", status=416)
        if start == 0 and end >= size:
            return self._whole(tenant_id, digest, size)
        return self._chunks(tenant_id, digest, start, min(end, size))

    async def _chunks(self, tenant_id: str, digest: str, start: int, end: int) -> AsyncIterator[bytes]:
        position = start
        while position < end:
            count = min(CHUNK_BYTES, end - position)
            chunk = await in_thread(self._files.read_at, tenant_id, digest, position, count)
            if not chunk:
                raise _corrupt(digest)
            position += len(chunk)
            yield chunk

    async def _whole(self, tenant_id: str, digest: str, size: int) -> AsyncIterator[bytes]:
        """The last chunk is held back until the digest is known: damaged content never looks complete."""
        seen, held = hashlib.sha256(), b""
        async for chunk in self._chunks(tenant_id, digest, 0, size):
            seen.update(chunk)
            if held:
                yield held
            held = chunk
        if f"sha256:{seen.hexdigest()}" != digest:
            raise _corrupt(digest)
        if held:
            yield held

    async def path(self, tenant_id: str, digest: str) -> Path:
        if await self.size(tenant_id, digest) is None:
            raise NotFound("no such artifact")
        return self._files.location(tenant_id, digest)


def _corrupt(digest: str) -> ArtifactCorrupt:
    log.error("artifact_corrupt", digest=digest)
    return ArtifactCorrupt("the stored artifact is damaged")
