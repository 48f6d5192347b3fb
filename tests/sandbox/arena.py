"""Where attacks are let loose: the sandbox worker's own loop on a real driver and a real log, watched from outside."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import resource
import tarfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from codeagent import clock
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import OutboxRow
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.sandbox_claims import SandboxLedger
from codeagent.eventlog.step import EffectRow, Steps
from codeagent.eventlog.step import Step as Committed
from codeagent.messages.commands import ExecuteOperation
from codeagent.messages.conversation import ToolCall
from codeagent.messages.envelope import Envelope, Message
from codeagent.messages.events import ExecEnded
from codeagent.messages.executions import OutputTold
from codeagent.messages.ids import exec_stream, run_stream, typed_id
from codeagent.messages.results import SandboxResult
from codeagent.messages.values import BASE_CHECKPOINT, ArchiveSource, CallTool, Operation, PrepareFiles
from codeagent.sandboxes.offers import OfferedDriver
from codeagent.sandboxes.protocol import IsolationLevel
from codeagent.workers.bounds import Bounds
from codeagent.workers.effect import EffectLoop, EffectPolicy
from codeagent.workers.sandbox import SandboxPerformer
from tests.sandbox import judge
from tests.sandbox.attack import SMALL, WAY_OUT, Attack, Step
from tests.sandbox.bait import Bait
from tests.sandbox.judge import Seen, Traces

TENANT = "ten_attacked"


@dataclass
class Outbound:
    """Takes what the worker hands over, and says when an effect is recorded."""

    answers: dict[UUID, asyncio.Future[SandboxResult]] = field(default_factory=dict)

    def expect(self, effect_id: UUID) -> asyncio.Future[SandboxResult]:
        return self.answers.setdefault(effect_id, asyncio.get_running_loop().create_future())

    def answer(self, row: OutboxRow) -> None:
        assert isinstance(row.data, SandboxResult)
        self.expect(row.data.effect_id).set_result(row.data)

    def events(self, *_: object) -> None:
        """No run is decided here."""

    def effect(self, *_: object) -> None:
        """No run is decided here."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run is: its files, as far as it has come."""

    run_id: str
    base: str
    checkpoint: str = BASE_CHECKPOINT


@dataclass
class Arena:
    """One worker. A run of somebody else has a workspace beside whichever is attacked from."""

    driver: OfferedDriver
    bait: Bait
    traces: Traces
    store: LocalArtifactStore
    database: Database
    outbound: Outbound
    performer: SandboxPerformer
    loop: EffectLoop

    @property
    def own_kernel(self) -> bool:
        return self.driver.level >= IsolationLevel.OWN_KERNEL

    async def attacked(self, attack: Attack) -> list[str]:
        """Lets it loose. Returns every way in which it was not contained."""
        self.bait.keep_victims(self.traces.victims)
        before = self.traces.left()
        run_id = typed_id("run", clock.new_uuid())
        found: list[str] = []
        try:
            place = Place(run_id, await self._packed(attack))
            for step in attack.steps:
                stepping = asyncio.ensure_future(self._step(place, attack, step))
                if attack.beside:
                    found += await self._beside(stepping)
                seen, place = await stepping
                found += judge.misses(step, seen, self.bait.secret)
        finally:
            await self.performer.workspaces.drop(run_id)
        found += self.bait.harm()
        return found + sorted(self.traces.left() - before)

    async def _beside(self, attacking: asyncio.Future[Any]) -> list[str]:
        """What the attack keeps somebody else's command from, on a worker with no more descriptors than is usual."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (_USUAL_DESCRIPTORS, limit[1]))
        try:
            await asyncio.sleep(_SPREADING_SECONDS)
            call = ToolCall(id="c", name="shell", arguments=json.dumps({"command": "echo beside"}))
            _, fact = await self.perform(await self._elsewhere(), CallTool(call=call, timeout_seconds=20), _NOBODY)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        found = [] if fact.reason == "ok" else [f"somebody else's command ended as {fact.reason}"]
        return [*found, *(["it was over before anybody was beside it"] if attacking.done() else [])]

    async def _elsewhere(self) -> Place:
        return Place("run_neighbour", await self.store.put(TENANT, packed({"neighbours-file": self.bait.secret})))

    async def _packed(self, attack: Attack) -> str:
        told = self.bait.for_programs(own_kernel=self.own_kernel)
        return await self.store.put(TENANT, packed({"bait.json": told, **attack.files}, attack.members))

    async def _step(self, place: Place, attack: Attack, step: Step) -> tuple[Seen, Place]:
        if step.tool == "prepare":
            operation: Operation = PrepareFiles(source=ArchiveSource(digest=place.base))
        else:
            call = ToolCall(id="c", name=step.tool, arguments=json.dumps(step.arguments))
            operation = CallTool(call=call, timeout_seconds=step.seconds)
        began = time.monotonic()
        answer, fact = await self.perform(place, operation, attack)
        after = Place(place.run_id, place.base, answer.checkpoint)
        patch = b""
        if after.checkpoint not in (BASE_CHECKPOINT, place.checkpoint):
            patch = await self.store.read(TENANT, after.checkpoint)
        output = answer.output.encode() + patch
        for told in (fact.stdout, fact.stderr):
            output += await self._whole(told)
        return Seen(fact, output, time.monotonic() - began, answer.error), after

    async def perform(self, place: Place, operation: Operation, attack: Attack) -> tuple[SandboxResult, ExecEnded]:
        """What the worker answers, and what the log then says."""
        effect_id = clock.new_uuid()
        command = ExecuteOperation(
            effect_id=effect_id,
            run_id=place.run_id,
            base=place.base,
            checkpoint=place.checkpoint,
            operation=operation,
            limits=attack.limits,
            egress=attack.egress or None,
        )
        envelope = Envelope(effect_id, command.NAME, 1, "/test", clock.now(), TENANT, place.run_id, effect_id)
        row = EffectRow(effect_id, "sandbox", command)
        await Steps(self.database).commit(
            Committed(
                run_id=place.run_id,
                stream_id=run_stream(place.run_id),
                expected_version=0,
                tenant_id=TENANT,
                cause=envelope,
                events=(),
                outbox_id=clock.new_uuid(),
                topic="t",
                effects=(row,),
            )
        )
        recorded = self.outbound.expect(effect_id)
        await self.loop.handle(Message(envelope, command))
        answer = await asyncio.wait_for(recorded, 60)
        logged = await EventLog(self.database).read_stream(exec_stream(effect_id))
        fact = logged[-1].decode()
        assert isinstance(fact, ExecEnded)
        return answer, fact

    async def _whole(self, told: OutputTold | None) -> bytes:
        if told is None:
            return b""
        return told.excerpt.encode() if told.ref is None else await self.store.read(TENANT, told.ref)

    async def neighbour(self) -> None:
        """Somebody else's run, whose workspace stays open and holds the secret."""
        place = await self._elsewhere()
        await self.perform(place, PrepareFiles(source=ArchiveSource(digest=place.base)), _NOBODY)


_USUAL_DESCRIPTORS = 1024
_SPREADING_SECONDS = 3.0
_NOBODY = Attack("neighbour", "", "", (), {}, SMALL)


def packed(files: Mapping[str, str], members: Sequence[Mapping[str, object]] = ()) -> bytes:
    """A .tar.gz of plain files, and of `members` as tarfile's `TarInfo` has them, valid or not."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, text in files.items():
            _add(tar, {"name": name, "text": text})
        for member in members:
            _add(tar, dict(member))
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, fields: dict[str, object]) -> None:
    data = str(fields.pop("text", "")).encode() or b"\0" * int(str(fields.pop("zeros", 0)))
    info = tarfile.TarInfo()
    info.size, info.mode = len(data), 0o644
    for name, value in fields.items():
        setattr(info, name, value.encode() if name == "type" and isinstance(value, str) else value)
    tar.addfile(info, io.BytesIO(data))


@asynccontextmanager
async def opened(driver: OfferedDriver, bait: Bait, traces: Traces, url: str, folder: Path) -> AsyncIterator[Arena]:
    """A worker on `driver`, with the workspace of a neighbour, until the context is left."""
    database, outbound = Database(url, connections=4), Outbound()
    store = LocalArtifactStore(folder / "artifacts")
    await store.start()

    async def unsent(_key: str, _value: bytes) -> None:
        pass

    performer = SandboxPerformer(
        driver, store, unsent, answers_topic="t", limits=Bounds(egress=WAY_OUT), most_workspaces=2
    )
    lease = timedelta(seconds=90)
    ledger = SandboxLedger(database, owner="arena", lease=lease, new_token=clock.new_uuid)
    loop = EffectLoop(database, ledger, performer, outbound, EffectPolicy(slots=2, lease_seconds=90, max_attempts=1))
    arena = Arena(driver, bait, traces, store, database, outbound, performer, loop)
    try:
        await driver.probe()
        await arena.neighbour()
        yield arena
    finally:
        await loop.drain(1)
        await performer.close()
        await driver.shutdown()
        await database.close()
