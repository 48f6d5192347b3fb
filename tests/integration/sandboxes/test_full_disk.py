"""A full artifact disk under a sandbox worker: it keeps what a command brought until there is room, and runs it once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from codeagent import clock
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.errors import Unavailable
from codeagent.eventlog.effects import Claim
from codeagent.messages.commands import ExecuteOperation
from codeagent.messages.conversation import ToolCall
from codeagent.messages.envelope import Envelope, Message
from codeagent.messages.ids import typed_id
from codeagent.messages.results import SandboxResult
from codeagent.messages.sandbox_limits import SandboxLimits
from codeagent.messages.values import ArchiveSource, CallTool, CollectPatch, Operation, PrepareFiles
from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.limits import LimitPolicy
from codeagent.workers.bounds import Bounds
from codeagent.workers.effect import Work
from codeagent.workers.sandbox import SandboxPerformer
from tests.integration.sandboxes.support import LIMITS, archive
from tests.services.small_disk import Disk, MakeDisk

TENANT = "ten_t"
BOUNDS = Bounds(
    LimitPolicy(SandboxLimits(workspace_bytes=LIMITS.workspace_bytes, workspace_inodes=LIMITS.workspace_inodes))
)
# Twice as much output as a model is shown, so that all of it becomes an artifact as well.
COMMAND = "echo done >> out; seq 20000"


class Watched(LocalArtifactStore):
    """Says when somebody found it full."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.refused = asyncio.Event()

    async def put(self, tenant_id: str, data: bytes) -> str:
        try:
            return await super().put(tenant_id, data)
        except Unavailable as error:
            assert error.code == "storage_full"
            self.refused.set()
            raise


class Worker:
    """A performer on a real driver and a real store; effects are handed to it one by one."""

    def __init__(self, driver: BubblewrapDriver, disk: Disk) -> None:
        self.store = Watched(disk.path)
        self.run_id = typed_id("run", clock.new_uuid())
        self.performer = SandboxPerformer(
            driver, self.store, _nowhere, answers_topic="t", limits=BOUNDS, most_workspaces=4
        )

    async def perform(self, operation: Operation, base: str | None = None, checkpoint: str = "") -> SandboxResult:
        effect_id = clock.new_uuid()
        command = ExecuteOperation(
            effect_id=effect_id, run_id=self.run_id, base=base, checkpoint=checkpoint, operation=operation
        )
        envelope = Envelope(
            id=effect_id,
            name=command.NAME,
            version=1,
            source="/test",
            time=clock.now(),
            tenant_id=TENANT,
            key=self.run_id,
            correlation_id=effect_id,
        )
        ended = await self.performer.perform(
            Work(Message(envelope, command), Claim(effect_id, clock.new_uuid(), 1, cancel_requested=False))
        )
        assert isinstance(ended.answer, SandboxResult)
        return ended.answer

    async def prepared(self, folder: Path) -> str:
        """The digest of the files the run starts from."""
        digest, _ = await self.store.put_file(TENANT, archive(folder, {"out": b"begun\n"}))
        base = (await self.perform(PrepareFiles(source=ArchiveSource(digest=digest)))).base
        assert base is not None
        return base


async def _nowhere(_key: str, _value: bytes) -> None:
    pass


def shell(command: str) -> CallTool:
    call = ToolCall(id="c", name="shell", arguments=f'{{"command": "{command}"}}')
    return CallTool(call=call, timeout_seconds=20)


async def test_what_a_command_brought_waits_for_room_and_is_not_done_again(
    driver: BubblewrapDriver, tmp_path: Path, make_disk: MakeDisk
) -> None:
    with make_disk(tmp_path / "artifacts") as disk:
        worker = Worker(driver, disk)
        base = await worker.prepared(tmp_path)
        disk.fill()
        before = disk.files()
        performing = asyncio.ensure_future(worker.perform(shell(COMMAND), base))
        async with asyncio.timeout(20):
            await worker.store.refused.wait()
        assert not performing.done()
        assert disk.files() == before, "nothing half-written stands there"
        disk.clear()
        async with asyncio.timeout(20):
            done = await performing
        assert (done.reason, done.exit_code) == ("ok", 0)
        assert done.output_ref is not None
        assert (await worker.store.read(TENANT, done.output_ref)).endswith(b"\n20000")
        collected = await worker.perform(CollectPatch(), base, done.checkpoint)
        assert collected.patch is not None
        patch = (await worker.store.read(TENANT, collected.patch.digest)).decode()
        assert patch.count("+done") == 1
        await worker.performer.close()


async def test_who_is_told_to_stop_does_not_wait_for_room(
    driver: BubblewrapDriver, tmp_path: Path, make_disk: MakeDisk
) -> None:
    with make_disk(tmp_path / "artifacts") as disk:
        worker = Worker(driver, disk)
        base = await worker.prepared(tmp_path)
        disk.fill()
        performing = asyncio.ensure_future(worker.perform(shell("echo lost >> out"), base))
        async with asyncio.timeout(20):
            await worker.store.refused.wait()
        performing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await performing
        disk.clear()
        # Its workspace is not trusted any more: the next operation starts from the last checkpoint.
        after = await worker.perform(shell("cat out"), base)
        assert after.output.endswith("begun")
        await worker.performer.close()
