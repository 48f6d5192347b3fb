"""The live workspaces of one worker: opened under a slot, worked in, closed, and reaped when their worker died."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from codeagent.sandboxes import processes
from codeagent.sandboxes.box import Box
from codeagent.sandboxes.dependencies import MOST_FILES
from codeagent.sandboxes.execution import Operation
from codeagent.sandboxes.launches import Machine, Parked
from codeagent.sandboxes.layouts import Layouts
from codeagent.sandboxes.outcome import Observed
from codeagent.sandboxes.protocol import DEFAULT_IMAGE, Limits, OutputSink, Reason, SandboxFailure, Workspace
from codeagent.sandboxes.slots import SlotPool
from codeagent.sandboxes.uninterrupted import in_thread, to_the_end
from codeagent.sandboxes.volumes import Volumes

_REAP_SECONDS = 10.0


@dataclass(eq=False)
class OpenWorkspace:
    """A workspace and what is going on in it. `slot_uid` owns its files; `tree` names its base in the repository; its
    commands see `image` and `dependencies`, which are laid out there, the driver's own operations never; `parked` waits
    for its next command, if it is to be kept `warm`."""

    id: str
    name: str
    slot_uid: int
    directory: Path = Path()
    tree: str = ""
    image: str = DEFAULT_IMAGE
    closed: bool = False
    stuck: bool = False
    operations: set[Operation] = field(default_factory=set)
    rooms: set[asyncio.Event] = field(default_factory=set)
    """For each volume beside its files, what is set once that is gone."""
    started: int = 0
    warm: bool = False
    parked: Parked | None = None
    dependencies: Path | None = None
    closing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def files(self) -> Path:
        """The only directory a command ever sees of these."""
        return self.directory / "files"

    @property
    def base(self) -> Path:
        """The repository that remembers what the workspace began as. No command ever sees it."""
        return self.directory / "base"


def name_for(workspace_id: str) -> str:
    """A name that says nothing: the path of a mount can be read inside."""
    return "w" + hashlib.sha256(workspace_id.encode("utf-8", "surrogatepass")).hexdigest()[:20]


class Workspaces:
    """Everything that needs root lies behind this class: groups, mounts, slots, and starting programs as a slot.

    A privileged process of its own can take its place without a change above it. `slots` is `None` where every
    workspace belongs to the worker's own user.
    """

    def __init__(
        self, machine: Machine, volumes: Volumes, layouts: Layouts, slots: SlotPool | None, *, parked: bool
    ) -> None:
        self._parked = parked
        self._layouts = layouts
        self._machine = machine
        self._volumes = volumes
        self._slots = slots
        self._live: dict[str, OpenWorkspace] = {}
        self._opening: set[str] = set()

    def own(self, workspace: Workspace) -> OpenWorkspace:
        """The workspace behind the caller's handle. Raises `SandboxFailure` (`closed`)."""
        if not isinstance(workspace, OpenWorkspace) or workspace.closed:
            raise SandboxFailure("the workspace is closed", reason="closed", retryable=False)
        return workspace

    @asynccontextmanager
    async def opening(self, workspace_id: str, limits: Limits) -> AsyncIterator[OpenWorkspace]:
        """An empty workspace, to be filled in the body; it is closed again if the body raises.

        Whatever was left under that id is killed and removed first. Raises `SandboxFailure` (`busy` if it is being
        opened already).
        """
        name = name_for(workspace_id)
        if name in self._opening:
            raise SandboxFailure("the workspace is being opened", reason="busy")
        self._opening.add(name)
        try:
            await to_the_end(self._discard(name))
            workspace = OpenWorkspace(workspace_id, name, os.geteuid() if self._slots is None else self._slots.lend())
            self._live[name] = workspace
            try:
                workspace.directory = await in_thread(self._volumes.make, name, workspace.slot_uid, limits)
                yield workspace
            except BaseException:
                await self.close(workspace)
                raise
        finally:
            self._opening.discard(name)

    async def lay_out(self, workspace: OpenWorkspace, dependencies: Path, limits: Limits) -> None:
        """What the workspace's commands find at /dependencies from now on. Raises `SandboxFailure`."""
        workspace.dependencies = await self._layouts.take(dependencies, limits)

    @asynccontextmanager
    async def room(self, workspace: OpenWorkspace, limits: Limits) -> AsyncIterator[Path]:
        """An empty volume of `dependencies_bytes` for the workspace's commands, there as long as the body runs."""
        name = f"room-{secrets.token_hex(4)}"
        volume, gone = workspace.directory / name, asyncio.Event()
        workspace.rooms.add(gone)
        try:
            await in_thread(
                self._volumes.add, workspace.directory, name, workspace.slot_uid, limits.dependencies_bytes, MOST_FILES
            )
            yield volume
        finally:
            try:
                await in_thread(self._volumes.drop, volume)
            finally:
                workspace.rooms.discard(gone)
                gone.set()

    async def operate(
        self, workspace: OpenWorkspace, box: Box, limits: Limits, sink: OutputSink, stdin: bytes = b""
    ) -> Observed:
        """Runs `box`; when this returns or raises, nothing of it is left. Raises `SandboxFailure`."""
        self.own(workspace)
        parked = None
        if not stdin:
            parked, workspace.parked = workspace.parked, None
        operation = Operation(self._machine, self._name(workspace), self._slot(workspace))
        workspace.operations.add(operation)
        try:
            return await operation.execute(box, limits, stdin, sink, parked)
        except SandboxFailure as failure:
            workspace.stuck |= failure.reason == "stuck"
            raise
        finally:
            workspace.operations.discard(operation)
            # Not before the caller has its answer: the next command is not asked for until someone has thought.
            asyncio.get_running_loop().call_soon(self._park, workspace, limits)

    def keep_warm(self, workspace: OpenWorkspace, limits: Limits) -> None:
        """From now on the sandbox of the workspace's next command is started ahead, under the limits last used."""
        workspace.warm = self._parked
        self._park(workspace, limits)

    def _park(self, workspace: OpenWorkspace, limits: Limits) -> None:
        if not workspace.warm or workspace.closed or workspace.parked is not None:
            return
        # The next command then starts without, and says what is wrong if it still is.
        with suppress(SandboxFailure, OSError):
            workspace.parked = self._machine.park(self._name(workspace), self._slot(workspace), limits)

    def _name(self, workspace: OpenWorkspace) -> str:
        workspace.started += 1
        return f"{workspace.name}.{workspace.started}"

    def _slot(self, workspace: OpenWorkspace) -> int | None:
        return None if self._slots is None else workspace.slot_uid

    def seal_base(self, workspace: OpenWorkspace) -> None:
        """Nobody writes to the workspace's base any more. Blocking."""
        self._volumes.seal_base(workspace.directory)

    async def close(self, workspace: OpenWorkspace) -> None:
        """Ends what runs in the workspace, and removes it. Idempotent. Raises `SandboxFailure` if something stays."""
        await to_the_end(self._close(workspace))

    async def _close(self, workspace: OpenWorkspace) -> None:
        async with workspace.closing:
            workspace.closed = True
            for operation in list(workspace.operations):
                operation.stop(Reason.CANCELED)
                await operation.finished.wait()
            for gone in list(workspace.rooms):
                await gone.wait()
            if workspace.parked is not None:
                parked, workspace.parked = workspace.parked, None
                await parked.launch.remove()
            if self._live.get(workspace.name) is not workspace:
                return
            await self._remove(workspace.name)
            del self._live[workspace.name]
            if workspace.dependencies is not None:
                await self._layouts.give_back(workspace.dependencies)
            # A slot with a process that cannot be ended is never lent again by this worker.
            if self._slots is not None and not workspace.stuck:
                self._slots.release(workspace.slot_uid)

    async def close_all(self) -> None:
        """Closes every workspace, and leaves nothing of this worker on the machine but its directory."""
        for workspace in list(self._live.values()):
            await self.close(workspace)
        self._machine.launcher.close()
        if self._machine.groups is not None:
            self._machine.groups.retire()

    async def _discard(self, name: str) -> None:
        live = self._live.get(name)
        if live is not None:
            await self._close(live)
        elif self._volumes.exists(name):
            await self._end_strays(name)
            await self._remove(name)

    async def _end_strays(self, name: str) -> None:
        """Ends programs of a worker that died before they could tie themselves to it."""
        for pid in await in_thread(processes.strays, str(self._volumes.root / name)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def _remove(self, name: str) -> None:
        groups = self._machine.groups
        for group in groups.leftovers(f"{name}.") if groups is not None else ():
            if not await in_thread(group.remove, within_seconds=_REAP_SECONDS):
                raise SandboxFailure("processes of a workspace cannot be ended", reason="stuck")
        await in_thread(self._volumes.remove, name)

    async def reap(self, keep: frozenset[str]) -> int:
        """Removes every workspace whose id is not in `keep`, with its processes. Returns how many."""
        kept = {name_for(workspace_id) for workspace_id in keep} | self._opening
        doomed = [name for name in self._volumes.names() if name not in kept]
        for name in doomed:
            await to_the_end(self._discard(name))
        if self._machine.groups is not None:
            for group in self._machine.groups.leftovers():
                if group.name.partition(".")[0] not in kept:
                    await in_thread(group.remove, within_seconds=_REAP_SECONDS)
        return len(doomed)
