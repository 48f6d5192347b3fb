"""Sandbox operations: a workspace a run, rebuilt from its last checkpoint wherever the run goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from codeagent.agent import tools
from codeagent.messages.commands import ExecuteOperation
from codeagent.messages.executions import FilesChanged
from codeagent.messages.values import (
    BASE_CHECKPOINT,
    Artifact,
    CallTool,
    CollectPatch,
    Dependencies,
    Files,
    InstallDependencies,
    Outcome,
    PrepareFiles,
    VerifyPatch,
)
from codeagent.messages.verification import Verification
from codeagent.sandboxes.changes import changes
from codeagent.sandboxes.commands import check_reach
from codeagent.sandboxes.notes import Notes
from codeagent.sandboxes.protected import without_protected
from codeagent.sandboxes.protocol import DEFAULT_IMAGE, ExecSpec, Limits, SandboxDriver, SandboxFailure
from codeagent.sandboxes.toolchains import check_image
from codeagent.workers import exec_facts
from codeagent.workers.bounds import Bounds
from codeagent.workers.deltas import LiveOutput, Send, live_output, unsent
from codeagent.workers.effect import Work
from codeagent.workers.ended import Ended
from codeagent.workers.exec_facts import Done, Told
from codeagent.workers.guidance import guidance_of
from codeagent.workers.held import Held, HeldWorkspaces, Place
from codeagent.workers.installing import NO_REGISTRIES, Installer, Registries, key_of
from codeagent.workers.provider import Blobs, resolve_arguments
from codeagent.workers.sources import CredentialFor, Sources, no_credential
from codeagent.workers.storing import stored_outputs, until_stored
from codeagent.workers.toolbox import Toolbox, ToolOutcome, ended_by_operator, spec_of, told_what_is_left_out

PATCH_TYPE = "text/x-diff"


class Store(Blobs, Protocol):
    """The artifact store, with files on this machine."""

    async def path(self, tenant_id: str, digest: str) -> Path: ...

    async def put_file(self, tenant_id: str, path: Path) -> tuple[str, int]: ...

    async def size(self, tenant_id: str, digest: str) -> int | None: ...


class SandboxPerformer:
    """Performs `sandbox.execute`. A workspace serves one claim at a time, or several that only read; one left dirty is
    never used again."""

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
        registries: Registries = NO_REGISTRIES,
    ) -> None:
        self.answers_topic = answers_topic
        self._driver = driver
        self._files = files
        self._sources = Sources(driver, files, credential_for)
        self._send_delta = send_delta
        self._limits = limits
        self._is_live = is_live
        self.workspaces = HeldWorkspaces(driver, most_workspaces, notes)
        self.close = self.workspaces.close
        self._installer = Installer(driver, files, self.workspaces, registries)

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
                check_image(self._driver.name, command.image, (await self._driver.probe()).images)
                tenant_id, files = work.message.envelope.tenant_id, command.operation.continues
                if files is None:
                    files = Files(base=await self._sources.archive(tenant_id, command.operation, limits))
                async with self._workspace(work, files, limits, "prepare"):
                    guidance = await guidance_of(await self._files.path(tenant_id, files.base), limits)
                    return Done(base=files.base, checkpoint=files.checkpoint, guidance=guidance)
            case InstallDependencies(dependencies=asked):
                return await self._install(work, command, asked, limits)
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

    def _workspace(
        self, work: Work, files: Files, limits: Limits, operation: str, *, shared: bool = False
    ) -> AbstractAsyncContextManager[Held]:
        """The run's workspace at a checkpoint."""
        tenant_id = work.message.envelope.tenant_id

        command = work.message.data
        assert isinstance(command, ExecuteOperation)
        dependencies = command.dependencies

        async def load() -> tuple[Path, bytes, Path | None]:
            patch = await self._files.read(tenant_id, files.checkpoint) if files.checkpoint else b""
            installed = None if dependencies is None else await self._files.path(tenant_id, dependencies)
            return await self._files.path(tenant_id, files.base), patch, installed

        place = Place(tenant_id, work.message.envelope.key, files.base, files.checkpoint, command.image, dependencies)
        return self.workspaces.at(place, limits, load, operation, str(work.claim.effect_id), shared=shared)

    async def _install(self, work: Work, command: ExecuteOperation, asked: Dependencies, limits: Limits) -> Done:
        """What is remembered of the files' dependencies, else what the command brings where it sees nothing but what
        decides under which key that is remembered."""
        tenant_id, image = work.message.envelope.tenant_id, command.image
        files = Files(base=_base(command), checkpoint=command.checkpoint)
        async with self._workspace(work, files, limits, "install") as held:
            lock_files = await self._installer.lock_files(held.workspace, asked)
        key = key_of(tenant_id, image or DEFAULT_IMAGE, asked.install, lock_files)
        done = Done(installed=await self._installer.recalled(tenant_id, key))
        if done.installed is None:
            await self._limits.admit(tenant_id, command, limits)
            spec, probed = self._installer.spec(asked, limits), await self._driver.probe()
            work.began = exec_facts.began(command, work.claim.attempt, probed, limits, spec.argv, key, spec.egress)
            place = Place(tenant_id, work.message.envelope.key, key, BASE_CHECKPOINT, image)
            async with self._installer.alone(place, limits, lock_files, str(work.claim.effect_id)) as held:
                done = await _unless_ended(held, self._installed(work, held, key, spec))
            if held.ended_by is not None:
                done = replace(done, tool=ended_by_operator(done.tool), installed=None, ended_by=held.ended_by)
        return replace(done, checkpoint=command.checkpoint, input_digest=key)

    async def _installed(self, work: Work, held: Held, key: str, spec: ExecSpec) -> Done:
        tenant_id = work.message.envelope.tenant_id
        async with self._live(work) as live:
            outcome, installed = await self._installer.install(held.workspace, tenant_id, key, spec, live.write)
        stdout, stderr = await stored_outputs(self._files, tenant_id, outcome.record)
        return Done(outcome, installed=installed, stdout=stdout, stderr=stderr)

    def _live(self, work: Work) -> AbstractAsyncContextManager[LiveOutput]:
        send = self._send_delta if self._is_live(work.message.envelope.tenant_id) else unsent
        return live_output(send, work.message.envelope.key, work.claim.effect_id, work.claim.attempt)

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
        async with self._workspace(work, files, limits, call.name, shared=call.name in tools.READING) as held:
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
        async with self._live(work) as live:
            toolbox = Toolbox(self._driver, held.workspace, limits, live.write, reach)
            outcome = await toolbox.carry_out(arguments)
        if outcome.whole is not None:
            await until_stored(partial(self._files.put, tenant_id, outcome.whole))
        stdout, stderr = await stored_outputs(self._files, tenant_id, outcome.record)
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
