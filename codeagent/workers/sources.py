"""The files a run starts from, as a plain archive: uploaded beforehand, or fetched."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from codeagent.artifacts.disk import explained
from codeagent.messages.values import ArchiveSource, PrepareFiles
from codeagent.sandboxes.protocol import GitCredential, Limits, SandboxDriver
from codeagent.workers.storing import until_stored

CredentialFor = Callable[[str, str, str], Awaitable[GitCredential | None]]
"""What opens a repository's address for a tenant's project."""


async def no_credential(_tenant_id: str, _project_id: str, _url: str) -> GitCredential | None:
    """Of a worker that fetches public repositories only."""
    return None


class Archives(Protocol):
    """Of the artifact store, what keeps an archive."""

    async def put_file(self, tenant_id: str, path: Path) -> tuple[str, int]: ...


class Sources:
    """Fetches in sandboxes of a driver."""

    def __init__(self, driver: SandboxDriver, archives: Archives, credential_for: CredentialFor) -> None:
        self._driver = driver
        self._archives = archives
        self._credential_for = credential_for

    async def archive(self, tenant_id: str, operation: PrepareFiles, limits: Limits) -> str:
        """Its digest. Raises `SandboxFailure`."""
        source = operation.source
        if isinstance(source, ArchiveSource):
            return source.digest
        credential = None
        if operation.project_id is not None:
            credential = await self._credential_for(tenant_id, operation.project_id, source.url)
        with explained():
            scratch = tempfile.TemporaryDirectory(prefix="codeagent-fetch-")
        with scratch as folder:
            archive = Path(folder) / "tree.tar.gz"
            await self._driver.fetch(source.url, source.ref, archive, limits, credential)
            digest, _ = await until_stored(partial(self._archives.put_file, tenant_id, archive))
            return digest
