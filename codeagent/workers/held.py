"""The workspaces a sandbox worker holds: one a run, reused while it is where the run is, given up when it is not."""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from codeagent import clock
from codeagent.messages.envelope import instant
from codeagent.sandboxes.changes import States
from codeagent.sandboxes.notes import Note, Notes
from codeagent.sandboxes.patches import validate_patch
from codeagent.sandboxes.protocol import Limits, SandboxDriver, Workspace
from codeagent.sandboxes.workspaces import name_for
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

Load = Callable[[], Awaitable[tuple[Path, bytes]]]
"""The archive and the patch that a workspace is made of."""


@dataclass(frozen=True, slots=True)
class Place:
    """Whose files, and where in the run's story: the base, and the checkpoint on it."""

    tenant_id: str
    run_id: str
    base: str
    checkpoint: str


@dataclass(eq=False, slots=True)
class Held:
    """A run's workspace on this machine. `states` are the files that its checkpoint differs in from the base,
    `left_out` the new ones that no checkpoint carries; `ended_by` is the operator who has ended what ran in it."""

    workspace: Workspace
    place: Place
    states: States
    note: Note
    left_out: tuple[str, ...] = ()
    busy: bool = True
    ended_by: str | None = None
    idle_since: float = field(default_factory=time.monotonic)


class HeldWorkspaces:
    """At most `most` where some are idle. One in which anything went wrong is closed, and never used again."""

    def __init__(self, driver: SandboxDriver, most: int, notes: Notes | None = None) -> None:
        self._driver = driver
        self._most = most
        self._notes = notes
        self._held: OrderedDict[str, Held] = OrderedDict()

    async def begin(self) -> None:
        """Called once, when the state directory is surely this worker's."""
        if self._notes is not None:
            await asyncio.to_thread(self._notes.prepare)

    @asynccontextmanager
    async def at(self, place: Place, limits: Limits, load: Load, operation: str, effect_id: str) -> AsyncIterator[Held]:
        """The run's workspace at that checkpoint, for one operation. Whatever else is there under its name is removed.
        The body says where the files are afterwards, by `place` and `states`."""
        held = await self._taken(place, limits, load)
        try:
            await self._tell(held, "working", operation, effect_id)
            yield held
            if held.ended_by is None:
                held.busy, held.idle_since = False, time.monotonic()
                await self._tell(held, "idle")
        finally:
            if held.busy:
                await self._give_up(held)

    async def _taken(self, place: Place, limits: Limits, load: Load) -> Held:
        held = self._held.pop(place.run_id, None)
        if held is not None and not held.busy and held.place == place:
            held.busy = True
            self._held[place.run_id] = held
            return held
        if held is not None:
            await self._close(held)
        while len(self._held) >= self._most and (idle := self._idle()):
            # Its run, if it goes on, is given a new one from its checkpoint.
            await self._give_up(idle[0])
        archive, patch = await load()
        workspace = await self._driver.open(place.run_id, archive, patch, limits)
        states = (await asyncio.to_thread(validate_patch, patch, limits)).states
        now = instant(clock.now())
        driver, level = self._driver.name, int(self._driver.level)
        ids = name_for(place.run_id), place.run_id, place.tenant_id
        note = Note(*ids, driver, level, os.getpid(), opened_at=now, state="working", since=now)
        self._held[place.run_id] = Held(workspace, place, states, note)
        return self._held[place.run_id]

    def _idle(self) -> list[Held]:
        """Those that nothing runs in, unused for longest first."""
        return [held for held in self._held.values() if not held.busy]

    async def drop(self, run_id: str) -> None:
        """The run needs its workspace no more."""
        held = self._held.get(run_id)
        if held is not None:
            await self._give_up(held)

    async def close_idle(self, longer_than_seconds: float) -> int:
        """Gives up what nothing has run in for so long: its run waits for somebody, or has ended elsewhere."""
        latest = time.monotonic() - longer_than_seconds
        old = [held for held in self._idle() if held.idle_since <= latest]
        for held in old:
            await self._give_up(held)
        metrics.SANDBOX_COLLECTED.labels("workspace").inc(len(old))
        return len(old)

    async def obey(self) -> None:
        """Ends what operators have asked to end, with its workspace."""
        if self._notes is None:
            return
        for name, operator in await asyncio.to_thread(self._notes.take_orders):
            for held in [held for held in self._held.values() if held.note.workspace == name]:
                log.warning("sandbox.ended_by_operator", run_id=held.place.run_id, operator=operator, busy=held.busy)
                held.ended_by = operator
                await self._give_up(held)

    async def _give_up(self, held: Held) -> None:
        if self._held.get(held.place.run_id) is held:
            del self._held[held.place.run_id]
        await self._close(held)

    async def _close(self, held: Held) -> None:
        await self._driver.close(held.workspace)
        if self._notes is not None:
            await _noted(partial(self._notes.remove, held.note.workspace))

    async def _tell(
        self, held: Held, state: Literal["working", "idle"], operation: str = "", effect_id: str = ""
    ) -> None:
        if self._notes is not None:
            since = instant(clock.now())
            held.note = replace(held.note, state=state, since=since, operation=operation, effect_id=effect_id)
            await _noted(partial(self._notes.write, held.note))

    async def close(self) -> None:
        """Removes every workspace of this worker."""
        for held in list(self._held.values()):
            await self._give_up(held)


async def _noted(change: Callable[[], None]) -> None:
    """Notes are for people: a disk that takes none of them stops no work."""
    try:
        await asyncio.to_thread(change)
    except OSError as error:
        log.warning("sandbox.note_not_written", error=error.strerror)
