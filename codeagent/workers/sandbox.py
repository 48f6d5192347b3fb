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
from codeagent.errors import CodeAgentError
from codeagent.messages.commands import ExecuteOperation
from codeagent.messages.events import ExecEnded
from codeagent.messages.ids import exec_stream
from codeagent.messages.results import SandboxResult
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
from codeagent.telemetry import metrics
from codeagent.workers.deltas import DeltaSender, Send, unsent
from codeagent.workers.effect import Ended, Work
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


@dataclass(frozen=True, slots=True)
class _Done:
    """What an operation brought, before it is put into words."""

    tool: ToolOutcome | None = None
    base: str | None = None
    checkpoint: str = BASE_CHECKPOINT
    patch: Artifact | None = None
    input_digest: str = ""


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
        limits: Limits,
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
        return self._words(work, command, done)

    async def _operate(self, work: Work, command: ExecuteOperation) -> _Done:
        tenant_id = work.message.envelope.tenant_id
        match command.operation:
            case PrepareFiles():
                files = command.operation.continues or Files(base=await self._source(tenant_id, command.operation))
                held = await self._workspace(work, files.base, files.checkpoint)
                held.dirty = False
                return _Done(base=files.base, checkpoint=files.checkpoint)
            case CallTool():
                return await self._tool(work, command, command.operation)
            case CollectPatch():
                return await self._collect(work, command)

    async def _source(self, tenant_id: str, operation: PrepareFiles) -> str:
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
            await self._driver.fetch(source.url, source.ref, archive, self._limits, credential)
            digest, _ = await until_stored(partial(self._files.put_file, tenant_id, archive))
            return digest

    async def _workspace(self, work: Work, base: str, checkpoint: str) -> _Held:
        """The run's workspace at a checkpoint, marked dirty. Whatever else is there under its name is removed."""
        run_id = work.message.envelope.key
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
        workspace = await self._driver.open(run_id, archive, patch, self._limits)
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

    async def _tool(self, work: Work, command: ExecuteOperation, operation: CallTool) -> _Done:
        tenant_id = work.message.envelope.tenant_id
        call = await resolve_arguments(self._files, tenant_id, operation.call)
        digest = f"sha256:{sha256(call.arguments.encode()).hexdigest()}"
        try:
            arguments = tools.parse(call)
        except tools.BadToolCall as error:
            outcome = ToolOutcome(str(error), "error", changed=False)
            return _Done(tool=outcome, checkpoint=command.checkpoint, input_digest=digest)
        held = await self._workspace(work, _base(command), command.checkpoint)
        send = self._send_delta if self._is_live(work.message.envelope.tenant_id) else unsent
        deltas = DeltaSender(send, "tool.output.delta", command.run_id, command.effect_id)
        deltas.begin_attempt(work.claim.attempt)
        toolbox = Toolbox(self._driver, held.workspace, self._limits, _streaming(deltas))
        try:
            outcome = await toolbox.carry_out(arguments, operation.timeout_seconds)
        finally:
            await deltas.close()
        if outcome.whole is not None:
            await until_stored(partial(self._files.put, tenant_id, outcome.whole))
        if outcome.changed:
            held.checkpoint = await self._checkpoint(tenant_id, held)
        held.dirty = False
        return _Done(tool=outcome, checkpoint=held.checkpoint, input_digest=digest)

    async def _checkpoint(self, tenant_id: str, held: _Held) -> str:
        patch = await self._driver.diff(held.workspace, self._limits)
        if not patch.text:
            return BASE_CHECKPOINT
        return await until_stored(partial(self._files.put, tenant_id, patch.text))

    async def _collect(self, work: Work, command: ExecuteOperation) -> _Done:
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
        return _Done(checkpoint=command.checkpoint, patch=patch)

    def _words(self, work: Work, command: ExecuteOperation, done: _Done) -> Ended:
        tool, record = done.tool, done.tool.record if done.tool is not None else None
        output_ref = f"sha256:{sha256(tool.whole).hexdigest()}" if tool is not None and tool.whole is not None else None
        reason = tool.reason if tool is not None else "ok"
        metrics.SANDBOX_EXEC.labels(self._driver.name, reason).observe(work.elapsed_seconds)
        fact = ExecEnded(
            effect_id=command.effect_id,
            run_id=command.run_id,
            attempt=work.claim.attempt,
            outcome=Outcome.DONE,
            operation=command.operation.kind,
            tool=command.operation.call.name if isinstance(command.operation, CallTool) else None,
            input_digest=done.input_digest,
            reason=reason,
            exit_code=tool.exit_code if tool is not None else None,
            limits_hit=record.limits_hit if record is not None else (),
            driver=self._driver.name,
            level=int(self._driver.level),
            wall_seconds=record.wall_seconds if record is not None else 0.0,
            cpu_seconds=record.cpu_seconds if record is not None else 0.0,
            peak_memory_bytes=record.peak_memory_bytes if record is not None else 0,
            output_digest=f"sha256:{sha256((tool.text if tool else '').encode()).hexdigest()}",
            checkpoint=done.checkpoint,
            duration_seconds=work.elapsed_seconds,
        )
        answer = SandboxResult(
            effect_id=command.effect_id,
            run_id=command.run_id,
            attempt=work.claim.attempt,
            outcome=Outcome.DONE,
            output=tool.text if tool is not None else "",
            output_ref=output_ref,
            reason=reason,
            exit_code=tool.exit_code if tool is not None else None,
            base=done.base,
            checkpoint=done.checkpoint,
            patch=done.patch,
            duration_seconds=work.elapsed_seconds,
        )
        return Ended(exec_stream(command.effect_id), fact, answer)

    def ended(self, work: Work, outcome: Outcome, error: BaseException | None) -> Ended:
        command = work.message.data
        assert isinstance(command, ExecuteOperation)
        reason = error.reason if isinstance(error, SandboxFailure) else getattr(error, "code", outcome.value)
        fact = ExecEnded(
            effect_id=command.effect_id,
            run_id=command.run_id,
            attempt=work.claim.attempt,
            outcome=outcome,
            operation=command.operation.kind,
            reason=reason,
            driver=self._driver.name,
            level=int(self._driver.level),
            duration_seconds=work.elapsed_seconds,
        )
        answer = SandboxResult(
            effect_id=command.effect_id,
            run_id=command.run_id,
            attempt=work.claim.attempt,
            outcome=outcome,
            checkpoint=command.checkpoint,
            reason=reason,
            error_reason=reason,
            error=error.detail if isinstance(error, CodeAgentError) else "",
        )
        return Ended(exec_stream(command.effect_id), fact, answer)

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
