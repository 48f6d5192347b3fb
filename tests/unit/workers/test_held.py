"""Who may be in a run's workspace together: those that only read, and nobody else."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from codeagent.sandboxes.protocol import Limits, SandboxFailure, Workspace
from codeagent.sandboxes.scripted import ScriptedDriver
from codeagent.workers.held import Held, HeldWorkspaces, Place
from tests.acceptance.checks import archive_of

LIMITS = Limits()
PLACE = Place("ten_a", "run_a", "sha256:base", "")


@dataclass
class Bench:
    """`loads` counts how often a workspace was made; none is made before `may_load`."""

    archive: Path
    held: HeldWorkspaces = field(default_factory=lambda: HeldWorkspaces(ScriptedDriver(), 4))
    loads: int = 0
    may_load: asyncio.Event = field(default_factory=asyncio.Event)

    async def load(self) -> tuple[Path, bytes, Path | None]:
        self.loads += 1
        await self.may_load.wait()
        return self.archive, b"", None

    def reads(self, place: Place = PLACE) -> AbstractAsyncContextManager[Held]:
        return self.held.at(place, LIMITS, self.load, "read_file", "e", shared=True)

    def writes(self, place: Place = PLACE) -> AbstractAsyncContextManager[Held]:
        return self.held.at(place, LIMITS, self.load, "shell", "e")

    def is_open(self, held: Held) -> bool:
        return not getattr(held.workspace, "closed")  # noqa: B009  the driver's own, which nobody else looks at


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(archive_of({"a": "1"}))
    made = Bench(archive)
    made.may_load.set()
    return made


async def test_readers_that_come_together_share_a_workspace_that_is_made_once(bench: Bench) -> None:
    bench.may_load.clear()
    inside: list[Held] = []
    together = asyncio.Barrier(3)

    async def read() -> None:
        async with bench.reads() as held:
            inside.append(held)
            await together.wait()

    readers = [asyncio.create_task(read()) for _ in range(3)]
    while not bench.loads:
        await asyncio.sleep(0)
    bench.may_load.set()
    await asyncio.gather(*readers)
    assert bench.loads == 1
    assert inside[0] is inside[1] is inside[2]
    assert bench.is_open(inside[0])


class Interrupting(ScriptedDriver):
    """Whoever has a workspace opened is cancelled just when it is there."""

    opened: Workspace | None = None

    async def open(self, *asked: Any) -> Workspace:
        self.opened = await super().open(*asked)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return self.opened


async def test_a_workspace_is_closed_whenever_its_user_is_cancelled(bench: Bench) -> None:
    driver = Interrupting()
    bench.held = HeldWorkspaces(driver, 4)

    async def write() -> None:
        async with bench.writes():
            await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(write())
    assert getattr(driver.opened, "closed")  # noqa: B009  as above


async def test_a_writer_has_the_readers_workspace_after_them_and_alone(bench: Bench) -> None:
    async with bench.reads() as first, bench.reads() as second:
        assert first is second
    async with bench.writes() as held:
        assert held is first
        held.place = replace(PLACE, checkpoint="sha256:new")
    async with bench.reads(held.place) as third:
        assert third is first
    assert bench.loads == 1


async def test_a_reader_with_an_older_place_does_not_join(bench: Bench) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(bench.reads())
        second = await stack.enter_async_context(bench.reads(replace(PLACE, checkpoint="sha256:new")))
        assert second is not first
        assert not bench.is_open(first)


async def test_a_reader_that_fails_disturbs_no_other_and_the_workspace_is_not_used_again(bench: Bench) -> None:
    for _ in range(2):  # an emptied workspace that is used again is to be waited for again
        async with bench.reads():
            pass
    loads = bench.loads
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(bench.reads())
        with pytest.raises(SandboxFailure):
            async with bench.reads():
                raise SandboxFailure("broken")
        assert bench.is_open(first)
        late = asyncio.create_task(stack.enter_async_context(bench.reads()))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not late.done()
        assert bench.loads == loads
        leaving = asyncio.create_task(stack.pop_all().aclose())
        second = await late
        await leaving
        assert second is not first
        assert bench.loads == loads + 1
        assert not bench.is_open(first)
        assert bench.is_open(second)
    await bench.held.close()
