"""Sandbox operations: a workspace a run, rebuilt from its last checkpoint wherever the run goes on."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from codeagent.agent import tools
from codeagent.artifacts.disk import explained
from codeagent.messages.commands import ExecuteOperation
from codeagent.messages.executions import FilesChanged, OutputTold
from codeagent.messages.values import (
    BASE_CHECKPOINT,
    ArchiveSource,
    Artifact,
    CallTool,
    CollectPatch,
    Files,
    Outcome,
    PrepareFiles,
    VerifyPatch,
)
from codeagent.messages.verification import Verification
from codeagent.sandboxes.changes import changes
from codeagent.sandboxes.commands import check_reach
from codeagent.sandboxes.notes import Notes
from codeagent.sandboxes.protected import without_protected
from codeagent.sandboxes.protocol import ExecRecord, GitCredential, Limits, SandboxDriver, SandboxFailure
from codeagent.workers import exec_facts
from codeagent.workers.bounds import Bounds
from codeagent.workers.deltas import DeltaSender, LiveOutput, Send, unsent
from codeagent.workers.effect import Work
from codeagent.workers.ended import Ended
from codeagent.workers.exec_facts import Done, Told
from codeagent.workers.held import Held, HeldWorkspaces, Place
from codeagent.workers.provider import Blobs, resolve_arguments
from codeagent.workers.storing import until_stored
from codeagent.workers.toolbox import Toolbox, ToolOutcome, ended_by_operator, spec_of, told_what_is_left_out

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


class SandboxPerformer:
    """Performs `sandbox.execute`. A workspace serves one claim at a time; one left dirty is never used again."""

    kind = "sandbox"

    def __init__(  # noqa: PLR0913  all that a worker is composed of
        self,
        driver: SandboxDriver,
        files: Store,
        send_delta: Send,
        *,
        answers_topic: str,
        limits: Bounds,
        most_workspaces: int,
        notes: Notes | None = None,
        is_live: Callable[[str], bool] = lambda _: True,
        credential_for: CredentialFor = no_credential,
    ) -> None:
        self.answers_topic = answers_topic
        self._driver = driver
        self._files = files
        self._credential_for = credential_for
        self._send_delta = send_delta
        self._limits = limits
        self._is_live = is_live
        self.workspaces = HeldWorkspaces(driver, most_workspaces, notes)
        self.close = self.workspaces.close

    async def perform(self, work: Work) -> Ended:
        command = work.message.data
        assert isinstance(command, ExecuteOperation)
        limits = self._limits.of(command)
        if not isinstance(command.operation, CallTool | VerifyPatch):
            work.began = exec_facts.began(command, work.claim.attempt, await self._driver.probe(), limits)
        done = await self._operate(work, command, limits)
        return exec_facts.done(self._told(work, command), done, limits)

    async def _operate(self, work: Work, command: ExecuteOperation, limits: Limits) -> Done:
        match command.operation:
            case PrepareFiles():
                # Before anything is fetched or asked of a model: what a run needs of its sandboxes, it has then.
                self._reach(command)
                files = command.operation.continues
                if files is None:
                    tenant_id = work.message.envelope.tenant_id
                    files = Files(base=await self._source(tenant_id, command.operation, limits))
                async with self._workspace(work, files, limits, "prepare"):
                    return Done(base=files.base, checkpoint=files.checkpoint)
            case CallTool():
                return await self._tool(work, command, command.operation, limits, self._reach(command))
            case CollectPatch():
                return await self._collect(work, command)
            case VerifyPatch(verification=verification):
                return await self._verify(work, command, verification, limits)

    def _reach(self, command: ExecuteOperation) -> tuple[str, ...]:
        reach = self._limits.reach_of(command)
        check_reach(self._driver, reach)
        return reach

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

    def _workspace(self, work: Work, files: Files, limits: Limits, operation: str) -> AbstractAsyncContextManager[Held]:
        """The run's workspace at a checkpoint."""
        tenant_id = work.message.envelope.tenant_id

        async def load() -> tuple[Path, bytes]:
            patch = await self._files.read(tenant_id, files.checkpoint) if files.checkpoint else b""
            return await self._files.path(tenant_id, files.base), patch

        place = Place(tenant_id, work.message.envelope.key, files.base, files.checkpoint)
        return self.workspaces.at(place, limits, load, operation, str(work.claim.effect_id))

    async def _tool(
        self, work: Work, command: ExecuteOperation, operation: CallTool, limits: Limits, reach: tuple[str, ...]
    ) -> Done:
        call = await resolve_arguments(self._files, work.message.envelope.tenant_id, operation.call)
        digest = f"sha256:{sha256(call.arguments.encode()).hexdigest()}"
        probed = await self._driver.probe()
        try:
            arguments = tools.parse(call)
        except tools.BadToolCall as error:
            work.began = exec_facts.began(command, work.claim.attempt, probed, limits, (), digest)
            outcome = ToolOutcome(str(error), "error", changed=False)
            return Done(tool=outcome, checkpoint=command.checkpoint, input_digest=digest)
        await self._limits.admit(work.message.envelope.tenant_id, command, limits)
        spec = spec_of(arguments, limits, reach)
        work.began = exec_facts.began(command, work.claim.attempt, probed, spec.limits, spec.argv, digest, spec.egress)
        files = Files(base=_base(command), checkpoint=command.checkpoint)
        async with self._workspace(work, files, limits, call.name) as held:
            done = await _unless_ended(held, self._carried_out(work, held, arguments, limits, reach))
            if held.ended_by is not None:
                # Its files go with the workspace: the run goes on from the checkpoint before.
                ended = ended_by_operator(done.tool)
                done = replace(done, tool=ended, checkpoint=command.checkpoint, changed=None, ended_by=held.ended_by)
        return replace(done, input_digest=digest)

    async def _carried_out(
        self, work: Work, held: Held, arguments: tools.ToolArguments, limits: Limits, reach: tuple[str, ...]
    ) -> Done:
        done = await self._ran(work, held, arguments, limits, reach)
        outcome = done.tool
        if outcome is None or not outcome.changed or held.ended_by is not None:
            return replace(done, checkpoint=held.place.checkpoint)
        before = held.left_out
        changed = await self._checkpoint(held, limits)
        outcome = told_what_is_left_out(outcome, [name for name in held.left_out if name not in before])
        return replace(done, tool=outcome, checkpoint=held.place.checkpoint, changed=changed)

    async def _ran(
        self, work: Work, held: Held, arguments: tools.ToolArguments, limits: Limits, reach: tuple[str, ...] = ()
    ) -> Done:
        """What a tool did, and wrote. Its files are as it left them."""
        tenant_id = work.message.envelope.tenant_id
        send = self._send_delta if self._is_live(tenant_id) else unsent
        live = LiveOutput(DeltaSender(send, "tool.output.delta", held.place.run_id, work.claim.effect_id))
        live.begin_attempt(work.claim.attempt)
        toolbox = Toolbox(self._driver, held.workspace, limits, live.write, reach)
        try:
            outcome = await toolbox.carry_out(arguments)
        finally:
            await live.close()
        if outcome.whole is not None:
            await until_stored(partial(self._files.put, tenant_id, outcome.whole))
        stdout, stderr = await self._outputs(tenant_id, outcome.record)
        return Done(outcome, stdout=stdout, stderr=stderr)

    async def _verify(self, work: Work, command: ExecuteOperation, asked: Verification, limits: Limits) -> Done:
        """Runs the command that judges a patch where nothing has run before it, and where the patch has changed
        nothing that is protected."""
        tenant_id, run_id = work.message.envelope.tenant_id, command.run_id
        arguments = tools.Shell(command=asked.command)
        spec = spec_of(arguments, limits)
        await self._limits.admit(tenant_id, command, limits)
        patch = b""
        if command.checkpoint != BASE_CHECKPOINT:
            patch = await self._files.read(tenant_id, command.checkpoint)
        patch, restored = await asyncio.to_thread(without_protected, patch, asked.protected, limits)
        checkpoint = await until_stored(partial(self._files.put, tenant_id, patch)) if patch else BASE_CHECKPOINT
        judged = command.model_copy(update={"checkpoint": checkpoint})
        work.began = exec_facts.began(judged, work.claim.attempt, await self._driver.probe(), spec.limits, spec.argv)
        # If another worker has collected the patch, the run's own workspace may still be here.
        await self.workspaces.drop(run_id)
        files = Files(base=_base(command), checkpoint=checkpoint)
        async with self._workspace(work, files, limits, "verify") as held:
            done = await _unless_ended(held, self._ran(work, held, arguments, limits))
            ended_by = held.ended_by
        await self.workspaces.drop(run_id)
        if ended_by is not None:
            done = replace(done, tool=ended_by_operator(done.tool), ended_by=ended_by)
        return replace(done, checkpoint=command.checkpoint, restored=restored[: exec_facts.MOST_FILES])

    async def _outputs(self, tenant_id: str, record: ExecRecord | None) -> list[OutputTold | None]:
        """What the log says of standard output and standard error. All of what does not fit there is stored."""
        told: list[OutputTold | None] = []
        if record is None:
            return [None, None]
        for kept, seen_bytes in ((record.stdout, record.stdout_seen_bytes), (record.stderr, record.stderr_seen_bytes)):
            output = await asyncio.to_thread(exec_facts.output_told, kept, seen_bytes)
            if output.ref is not None:
                await until_stored(partial(self._files.put, tenant_id, kept))
            told.append(output)
        return told

    async def _checkpoint(self, held: Held, limits: Limits) -> FilesChanged:
        """Stores the files as they are; `held` is there then. Returns what differs from the checkpoint before."""
        patch = await self._driver.diff(held.workspace, limits)
        checkpoint = BASE_CHECKPOINT
        if patch.text:
            checkpoint = await until_stored(partial(self._files.put, held.place.tenant_id, patch.text))
        found = changes(held.states, patch.states)
        held.place, held.states, held.left_out = (
            replace(held.place, checkpoint=checkpoint),
            patch.states,
            patch.left_out,
        )
        return exec_facts.files_changed(found, patch.left_out)

    async def _collect(self, work: Work, command: ExecuteOperation) -> Done:
        """The last checkpoint is the patch: nothing has run since."""
        tenant_id = work.message.envelope.tenant_id
        patch: Artifact | None = None
        if command.checkpoint != BASE_CHECKPOINT:
            data = await self._files.read(tenant_id, command.checkpoint)
            patch = Artifact(
                name="changes.patch", media_type=PATCH_TYPE, size_bytes=len(data), digest=command.checkpoint
            )
        await self.workspaces.drop(command.run_id)
        return Done(checkpoint=command.checkpoint, patch=patch)

    def ended(self, work: Work, outcome: Outcome, error: BaseException | None) -> Ended:
        command = work.message.data
        assert isinstance(command, ExecuteOperation)
        return exec_facts.not_done(self._told(work, command), outcome, error)

    def _told(self, work: Work, command: ExecuteOperation) -> Told:
        driver = self._driver
        return Told(command, work.claim.attempt, driver.name, int(driver.level), work.elapsed_seconds)


async def _unless_ended(held: Held, doing: Awaitable[Done]) -> Done:
    """What it brings, or nothing where somebody has ended it from outside."""
    try:
        return await doing
    except SandboxFailure:
        if held.ended_by is None:
            raise
        return Done()


def _base(command: ExecuteOperation) -> str:
    if command.base is None:
        raise SandboxFailure("the run's files were never prepared", retryable=False)
    return command.base
