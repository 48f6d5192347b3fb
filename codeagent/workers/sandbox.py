"""Sandbox operations: a workspace a run, rebuilt from its last checkpoint wherever the run goes on."""

from __future__ import annotations

import asyncio
import tempfile
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from codeagent.agent import tools
from codeagent.artifacts.disk import explained
from codeagent.messages.commands import ExecuteOperation
from codeagent.messages.values import (
    BASE_CHECKPOINT,
    ArchiveSource,
    Artifact,
    CallTool,
    CollectPatch,
    Files,
    Outcome,
    PrepareFiles,
)
from codeagent.sandboxes.protocol import GitCredential, Limits, SandboxDriver, SandboxFailure, Workspace
from codeagent.workers import outcomes
from codeagent.workers.bounds import Bounds
from codeagent.workers.deltas import DeltaSender, Send, unsent
from codeagent.workers.effect import Ended, Work
from codeagent.workers.outcomes import Done
from codeagent.workers.provider import Blobs, resolve_arguments
from codeagent.workers.storing import until_stored
from codeagent.workers.toolbox import Toolbox, ToolOutcome

PATCH_TYPE = "text/x-diff"


class Store(Blobs, Protocol):
    """The artifact store, with files on this machine."""

    async def path(self, tenant_id: str, digest: str) -> Path: ...

    async def put_file(self, tenant_id: str, path: Path) -> tuple[str, int]: ...


CredentialFor = Callable[[str, str, str], Awaitable[GitCredential | None]]
"""What opens a repository's address for a tenant's project."""


async def no_credential(_tenant_id: str, _project_id: str, _url: str) -> GitCredential | None:
    """Of a worker that fetches public repositories only."""
    return None


@dataclass(slots=True)
class _Held:
    """A run's workspace on this machine, and the checkpoint its files are at. `dirty` while an operation runs."""

    workspace: Workspace
    base: str
    checkpoint: str
    dirty: bool = False


class SandboxPerformer:
    """Performs `sandbox.execute`. A workspace serves one claim at a time; one left dirty is never used again."""

    kind = "sandbox"

    def __init__(
        self,
        driver: SandboxDriver,
        files: Store,
        send_delta: Send,
        *,
        answers_topic: str,
        limits: Bounds,
        most_workspaces: int,
        is_live: Callable[[str], bool] = lambda _: True,
        credential_for: CredentialFor = no_credential,
    ) -> None:
        self.answers_topic = answers_topic
        self._driver = driver
        self._files = files
        self._credential_for = credential_for
        self._send_delta = send_delta
        self._limits = limits
        self._most = most_workspaces
        self._is_live = is_live
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._opening = asyncio.Lock()

    async def perform(self, work: Work) -> Ended:
        command = work.message.data
        assert isinstance(command, ExecuteOperation)
        done = await self._operate(work, command)
        return outcomes.of_operation(self._driver, work, done)

    async def _operate(self, work: Work, command: ExecuteOperation) -> Done:
        tenant_id = work.message.envelope.tenant_id
        match command.operation:
            case PrepareFiles():
                limits = self._limits.of(command)
                files = command.operation.continues
                if files is None:
                    files = Files(base=await self._source(tenant_id, command.operation, limits))
                held = await self._workspace(work, files, limits)
                held.dirty = False
                return Done(base=files.base, checkpoint=files.checkpoint)
            case CallTool():
                return await self._tool(work, command, command.operation)
            case CollectPatch():
                return await self._collect(work, command)

    async def _source(self, tenant_id: str, operation: PrepareFiles, limits: Limits) -> str:
        """The digest of the plain archive the run starts from."""
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
            digest, _ = await until_stored(partial(self._files.put_file, tenant_id, archive))
            return digest

    async def _workspace(self, work: Work, files: Files, limits: Limits) -> _Held:
        """The run's workspace at a checkpoint, marked dirty. Whatever else is there under its name is removed."""
        run_id, base, checkpoint = work.message.envelope.key, files.base, files.checkpoint
        held = self._held.pop(run_id, None)
        if held is not None and not held.dirty and (held.base, held.checkpoint) == (base, checkpoint):
            held.dirty = True
            self._held[run_id] = held
            return held
        tenant_id = work.message.envelope.tenant_id
        if held is not None:
            await self._driver.close(held.workspace)
        await self._make_room()
        patch = await self._files.read(tenant_id, checkpoint) if checkpoint else b""
        archive = await self._files.path(tenant_id, base)
        workspace = await self._driver.open(run_id, archive, patch, limits)
        held = _Held(workspace, base, checkpoint, dirty=True)
        self._held[run_id] = held
        return held

    async def _make_room(self) -> None:
        """Closes the workspace unused for longest; its run, if it goes on, is given a new one from its checkpoint."""
        while len(self._held) >= self._most:
            idle = next((run_id for run_id, held in self._held.items() if not held.dirty), None)
            if idle is None:
                return
            await self._driver.close(self._held.pop(idle).workspace)

    async def _tool(self, work: Work, command: ExecuteOperation, operation: CallTool) -> Done:
        tenant_id = work.message.envelope.tenant_id
        call = await resolve_arguments(self._files, tenant_id, operation.call)
        digest = f"sha256:{sha256(call.arguments.encode()).hexdigest()}"
        try:
            arguments = tools.parse(call)
        except tools.BadToolCall as error:
            outcome = ToolOutcome(str(error), "error", changed=False)
            return Done(tool=outcome, checkpoint=command.checkpoint, input_digest=digest)
        limits = self._limits.of(command)
        await self._limits.admit(tenant_id, command, limits)
        held = await self._workspace(work, Files(base=_base(command), checkpoint=command.checkpoint), limits)
        send = self._send_delta if self._is_live(work.message.envelope.tenant_id) else unsent
        deltas = DeltaSender(send, "tool.output.delta", command.run_id, command.effect_id)
        deltas.begin_attempt(work.claim.attempt)
        toolbox = Toolbox(self._driver, held.workspace, limits, _streaming(deltas))
        try:
            outcome = await toolbox.carry_out(arguments)
        finally:
            await deltas.close()
        if outcome.whole is not None:
            await until_stored(partial(self._files.put, tenant_id, outcome.whole))
        if outcome.changed:
            held.checkpoint = await self._checkpoint(tenant_id, held, limits)
        held.dirty = False
        return Done(tool=outcome, checkpoint=held.checkpoint, input_digest=digest, memory_bytes=limits.memory_bytes)

    async def _checkpoint(self, tenant_id: str, held: _Held, limits: Limits) -> str:
        patch = await self._driver.diff(held.workspace, limits)
        if not patch.text:
            return BASE_CHECKPOINT
        return await until_stored(partial(self._files.put, tenant_id, patch.text))

    async def _collect(self, work: Work, command: ExecuteOperation) -> Done:
        """The last checkpoint is the patch: nothing has run since."""
        tenant_id = work.message.envelope.tenant_id
        patch: Artifact | None = None
        if command.checkpoint != BASE_CHECKPOINT:
            data = await self._files.read(tenant_id, command.checkpoint)
            patch = Artifact(
                name="changes.patch", media_type=PATCH_TYPE, size_bytes=len(data), digest=command.checkpoint
            )
        held = self._held.pop(command.run_id, None)
        if held is not None:
            await self._driver.close(held.workspace)
        return Done(checkpoint=command.checkpoint, patch=patch)

    def ended(self, work: Work, outcome: Outcome, error: BaseException | None) -> Ended:
        return outcomes.without_result(self._driver, work, outcome, error)

    async def close(self) -> None:
        """Removes every workspace of this worker."""
        held, self._held = self._held, OrderedDict()
        for item in held.values():
            await self._driver.close(item.workspace)


def _base(command: ExecuteOperation) -> str:
    if command.base is None:
        raise SandboxFailure("the run's files were never prepared", retryable=False)
    return command.base


def _streaming(deltas: DeltaSender) -> Callable[[str, bytes], Awaitable[None]]:
    async def write(stream: str, data: bytes) -> None:
        await deltas.write("stderr" if stream == "stderr" else "stdout", data.decode(errors="replace"))

    return write
