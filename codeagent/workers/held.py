"""The workspaces a sandbox worker holds: one a run, reused while it is where the run is, given up when it is not."""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal
from weakref import WeakValueDictionary

from codeagent import clock
from codeagent.messages.envelope import instant
from codeagent.sandboxes.changes import States
from codeagent.sandboxes.notes import Note, Notes
from codeagent.sandboxes.patches import validate_patch
from codeagent.sandboxes.protocol import DEFAULT_IMAGE, Limits, SandboxDriver, Toolchain, Workspace
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)
EndedAmong = Callable[[Sequence[str]], Awaitable[Collection[str]]]
"""Which of these runs have ended."""

Load = Callable[[], Awaitable[tuple[Path, bytes, Path | None]]]
"""The archive and the patch that a workspace is made of, and the archive of its dependencies."""


@dataclass(frozen=True, slots=True)
class Place:
    """Whose files, and where in the run's story: the base, and the checkpoint on it. `image` is what commands see, None
    for the usual one; `dependencies` what was installed for them."""

    tenant_id: str
    run_id: str
    base: str
    checkpoint: str
    image: str | None = None
    dependencies: str | None = None


@dataclass(eq=False, slots=True)
class Held:
    """A run's workspace on this machine. `states` are the files that its checkpoint differs in from the base,
    `left_out` the new ones that no checkpoint carries; `ended_by` is the operator who has ended what ran in it."""

    workspace: Workspace
    place: Place
    states: States
    note: Note
    left_out: tuple[str, ...] = ()
    users: int = 1
    """Operations in it: one, or several where it `is_shared` among those that only read."""
    is_shared: bool = False
    is_spoiled: bool = False
    emptied: asyncio.Event = field(default_factory=asyncio.Event)
    ended_by: str | None = None
    idle_since: float = field(default_factory=time.monotonic)


class HeldWorkspaces:
    """At most `most` where some are idle. One in which anything went wrong is closed, and never used again."""

    def __init__(self, driver: SandboxDriver, most: int, notes: Notes | None = None) -> None:
        self._driver = driver
        self._most = most
        self._notes = notes
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def begin(self) -> None:
        """Called once, when the state directory is surely this worker's."""
        if self._notes is not None:
            await asyncio.to_thread(self._notes.prepare)

    @asynccontextmanager
    async def at(
        self, place: Place, limits: Limits, load: Load, operation: str, effect_id: str, *, shared: bool = False
    ) -> AsyncIterator[Held]:
        """The run's workspace at that checkpoint, for one operation. Whatever else is there under its name is removed.
        The body says where the files are afterwards, by `place` and `states`. Those that change nothing may have it
        `shared` with others of their kind."""
        held = await (self._joined if shared else self._taken)(place, limits, load)
        is_clean = False
        try:
            await self._tell(held, "working", operation, effect_id)
            yield held
            is_clean = held.ended_by is None
        finally:
            await self._left(held, is_clean=is_clean)

    async def _joined(self, place: Place, limits: Limits, load: Load) -> Held:
        """The workspace that others read in, or one of its own for others to join. They come in one by one, so that the
        second does not remove what is being made for the first."""
        turn = self._turns.setdefault(place.run_id, asyncio.Lock())
        async with turn:
            held = self._held.get(place.run_id)
            if held is not None and held.is_shared and held.is_spoiled and held.users:
                # To make another one under its name would end what the others do in it.
                await held.emptied.wait()
                held = None
            if held is not None and held.is_shared and held.users and held.place == place:
                held.users += 1
                return held
            held = await self._taken(place, limits, load)
            held.is_shared = True
            return held

    async def _left(self, held: Held, *, is_clean: bool) -> None:
        held.users -= 1
        held.is_spoiled |= not is_clean
        if held.users:
            return
        try:
            if held.is_spoiled:
                await self._give_up(held)
            else:
                held.idle_since = time.monotonic()
                await self._tell(held, "idle")
        finally:
            held.emptied.set()

    async def _taken(self, place: Place, limits: Limits, load: Load) -> Held:
        held = self._held.pop(place.run_id, None)
        if held is not None and not held.users and held.place == place:
            held.users, held.is_shared = 1, False
            held.emptied.clear()
            self._held[place.run_id] = held
            return held
        if held is not None:
            await self._close(held)
        while len(self._held) >= self._most and (idle := self._idle()):
            # Its run, if it goes on, is given a new one from its checkpoint.
            await self._give_up(idle[0])
        archive, patch, dependencies = await load()
        toolchain = Toolchain(place.image or DEFAULT_IMAGE, dependencies)
        states = (await asyncio.to_thread(validate_patch, patch, limits)).states
        workspace = await self._driver.open(place.run_id, archive, patch, limits, toolchain)
        # Nothing is awaited from here on: one that nobody holds is closed by nobody.
        now = instant(clock.now())
        driver, level = self._driver.name, int(self._driver.level)
        ids = workspace.name, place.run_id, place.tenant_id
        note = Note(*ids, driver, level, os.getpid(), opened_at=now, state="working", since=now)
        self._held[place.run_id] = Held(workspace, place, states, note)
        return self._held[place.run_id]

    def _idle(self) -> list[Held]:
        """Those that nothing runs in, unused for longest first."""
        return [held for held in self._held.values() if not held.users]

    async def drop(self, run_id: str) -> None:
        """The run needs its workspace no more."""
        held = self._held.get(run_id)
        if held is not None:
            await self._give_up(held)

    async def close_ended(self, ended_among: EndedAmong) -> int:
        """Gives up what belongs to runs that have ended while nothing ran in it: nobody says so otherwise."""
        idle = {held.place.run_id: held for held in self._idle()}
        ended = await ended_among(list(idle)) if idle else ()
        old = [idle[run_id] for run_id in ended if self._held.get(run_id) is idle[run_id] and not idle[run_id].users]
        for held in old:
            await self._give_up(held)
        metrics.SANDBOX_COLLECTED.labels("workspace").inc(len(old))
        return len(old)

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
                log.warning(
                    "sandbox.ended_by_operator", run_id=held.place.run_id, operator=operator, busy=bool(held.users)
                )
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
