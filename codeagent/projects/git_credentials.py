"""Git credentials of projects: set and removed by the edge, opened by the sandbox worker that fetches, told to nobody.

A credential is sealed for the repository that its project had when it was given: for any other it does not open.
"""

from __future__ import annotations

from codeagent.encryption import NotOpened, SecretBox
from codeagent.errors import CodeAgentError
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author, ControlPlane
from codeagent.messages.ids import project_stream
from codeagent.messages.project_events import GitCredentialRemoved, GitCredentialSet
from codeagent.sandboxes.protocol import GitCredential, SandboxFailure

_NEXT_VERSION = """UPDATE projects SET version = version + 1, updated_at = clock_timestamp()
    WHERE id = $1 RETURNING version, repository"""


def _place(project_id: str, repository: str) -> str:
    return f"git_credentials/{project_id}/{repository}"


class GitCredentials:
    """The edge's half. Its role cannot read tokens. Without a `box` there is nothing to seal with."""

    def __init__(self, database: Database, box: SecretBox | None) -> None:
        self._control = ControlPlane(database)
        self._box = box

    async def set(self, author: Author, project_id: str, credential: GitCredential) -> int:
        """Puts the credential in the place of any other; returns the project's version. The project exists."""
        if self._box is None:
            detail = "This installation has no key to seal credentials with."
            raise CodeAgentError(detail, code="not_implemented", status=501)
        async with self._control.change(author) as change:
            project = await change.row(_NEXT_VERSION, project_id)
            place = _place(project_id, project["repository"])
            await change.rows("DELETE FROM git_credentials WHERE project_id = $1", project_id)
            await change.rows(
                """INSERT INTO git_credentials (project_id, tenant_id, repository, username, token_sealed)
                   VALUES ($1, $2, $3, $4, $5)""",
                project_id,
                author.tenant_id,
                project["repository"],
                credential.username,
                self._box.seal(credential.token.encode(), place),
            )
            version = int(project["version"])
            await change.record(project_stream(project_id), version, GitCredentialSet(project_id=project_id))
        return version

    async def remove(self, author: Author, project_id: str) -> None:
        """Where there is one."""
        async with self._control.change(author) as change:
            # The project's lock comes first, as everywhere.
            await change.rows("SELECT 1 FROM projects WHERE id = $1 FOR NO KEY UPDATE", project_id)
            if await change.rows("DELETE FROM git_credentials WHERE project_id = $1 RETURNING 1", project_id):
                project = await change.row(_NEXT_VERSION, project_id)
                removed = GitCredentialRemoved(project_id=project_id)
                await change.record(project_stream(project_id), project["version"], removed)


class SealedCredentials:
    """The sandbox worker's half: `database` sees all tenants, so every look names its own."""

    def __init__(self, database: Database, box: SecretBox | None) -> None:
        self._database = database
        self._box = box

    async def open(self, tenant_id: str, project_id: str, url: str) -> GitCredential | None:
        """What opens `url` for a project; None where the project has nothing for it.

        Raises `SandboxFailure` (`credential_unavailable`) where there is a credential that this worker cannot open.
        """
        rows = await self._database.fetch(
            """SELECT username, token_sealed FROM git_credentials
               WHERE tenant_id = $1 AND project_id = $2 AND repository = $3""",
            tenant_id,
            project_id,
            url,
        )
        if not rows:
            return None
        try:
            if self._box is None:
                raise NotOpened("there is no key-encryption key")
            token = self._box.open(rows[0]["token_sealed"], _place(project_id, url))
        except NotOpened as error:
            raise SandboxFailure(
                f"the project's git credential cannot be opened: {error.detail}",
                reason="credential_unavailable",
                retryable=False,
            ) from error
        return GitCredential(rows[0]["username"], token.decode())
