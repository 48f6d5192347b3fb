"""A story as it is played: the simulated workers, with the scripted twins of a vendor and a sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from codeagent.broker.topics import PROVIDER_EVENTS, PROVIDER_WORKER, SANDBOX_EVENTS
from codeagent.edge.joined import structured
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import StoredEvent
from codeagent.messages.ids import run_stream
from codeagent.messages.values import ArchiveSource, Files
from codeagent.providers.breaker import Breaker
from codeagent.providers.retry import ResilientProvider
from codeagent.providers.scripted import ScriptedProvider
from codeagent.sandboxes.archives import pack_files
from codeagent.sandboxes.patch_text import MemoryFile, make_patch
from codeagent.sandboxes.patches import validate_patch
from codeagent.sandboxes.protocol import Limits
from codeagent.sandboxes.scripted import ScriptedDriver
from codeagent.workers.bounds import Bounds
from codeagent.workers.effect import Performer
from codeagent.workers.provider import ProviderPerformer
from codeagent.workers.sandbox import SandboxPerformer
from tests.golden.stories import FILES, Story, bash
from tests.integration.workers.simulated.checks import ended
from tests.integration.workers.simulated.gates import Process, Wire
from tests.integration.workers.simulated.performers import Blobs, unwatched
from tests.integration.workers.simulated.schedule import Schedule
from tests.integration.workers.simulated.world import World
from tests.integration.workers.system import TENANT, Bench

WITHIN_SECONDS = 200
REPAIRED = {**FILES, "cart.py": FILES["cart.py"].replace(b" + 1", b"")}


class _Files(Blobs):
    """The artifact store, with files in a folder where a driver reads them."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    async def path(self, tenant_id: str, digest: str) -> Path:
        file = self._folder / digest.removeprefix("sha256:")
        file.write_bytes(await self.read(tenant_id, digest))
        return file


class _World(World):
    def __init__(self, database: Database, story: Story, folder: Path) -> None:
        super().__init__(database, 0)
        self._story = story
        self._folder = folder
        self._files = _Files(folder)

    def _performer(self, role: str, process: Process, wire: Wire) -> Performer:
        if role == PROVIDER_WORKER:
            twin = ScriptedProvider(self._story.answers, context_window=self._story.window)
            model = ResilientProvider(twin, Breaker(twin.name))
            return ProviderPerformer(
                EventLog(wire), self._files, lambda name: (model, name), unwatched, answers_topic=PROVIDER_EVENTS
            )
        return SandboxPerformer(
            ScriptedDriver(bash),
            self._files,
            unwatched,
            answers_topic=SANDBOX_EVENTS,
            limits=Bounds(),
            most_workspaces=1,
        )

    async def begin(self) -> Bench:
        run = Bench(self.database)
        self.runs.append(run)
        archive = self._folder / "source.tar.gz"
        pack_files({**FILES, **self._story.brings}, archive, Limits())
        source = await self._files.put(TENANT, archive.read_bytes())
        said: dict[str, Any] = {"task": "Make the tests pass.", "source": ArchiveSource(digest=source)}
        said |= self._story.submitted
        if self._story.continues:
            before, after = ({name: MemoryFile(data) for name, data in files.items()} for files in (FILES, REPAIRED))
            patch = validate_patch(make_patch(before, after), Limits())
            said["continues"] = Files(base=source, checkpoint=await self._files.put(TENANT, patch.text))
        command = run.submit(**self._story.limits).data
        self._submits[run.run_id] = command.model_copy(update=said)
        await self.submit_again(run)
        return run


class _Played(Schedule):
    """Everything in order. The story's person acts when nothing goes on by itself."""

    def __init__(self, world: _World, story: Story) -> None:
        super().__init__(world, may_cancel=False)
        self._story = story

    async def people_act(self) -> None:
        await self._story.person(self.world, self.world.runs[0])


async def played(database: Database, story: Story, folder: Path) -> bytes:
    """The run's events, one a line."""
    world = _World(database, story, folder)
    schedule = _Played(world, story)
    await world.start()
    try:
        run = await world.begin()
        await schedule.come_to_rest(WITHIN_SECONDS)
        assert await ended(world)
        assert not world.faults, world.faults
        stream = await EventLog(database).read_stream(run_stream(run.run_id))
        return b"".join(_line(event) for event in stream)
    finally:
        await world.stop()


def _line(event: StoredEvent) -> bytes:
    document = structured(event)
    # It covers the trace that the event was part of, which is another one each time.
    del document["leafhash"]
    return orjson.dumps(document) + b"\n"
