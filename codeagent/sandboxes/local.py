"""Drivers whose sandboxes are programs on this machine, one for each operation. What starts them is an `Engine`."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from codeagent.sandboxes import (
    archives,
    beneath,
    cgroup_layout,
    machine,
    outcome,
    outlets,
    portable,
    repository,
)
from codeagent.sandboxes.box import WORKSPACE, Bind, Box
from codeagent.sandboxes.cgroups import ControlGroups
from codeagent.sandboxes.commands import check_command, check_reach
from codeagent.sandboxes.dependencies import installed_in, pack, shown_in
from codeagent.sandboxes.egress import Proxy
from codeagent.sandboxes.fetch import Fetcher
from codeagent.sandboxes.launcher import Engine
from codeagent.sandboxes.launches import Machine
from codeagent.sandboxes.layouts import Layouts
from codeagent.sandboxes.patches import validate_patch
from codeagent.sandboxes.probe import prove
from codeagent.sandboxes.protocol import (
    DEFAULT_IMAGE,
    DEFAULT_TOOLCHAIN,
    ExecRecord,
    ExecSpec,
    GitCredential,
    IsolationLevel,
    Limits,
    OutputSink,
    Patch,
    ProbeReport,
    Reason,
    SandboxFailure,
    SandboxUnavailable,
    Toolchain,
    Workspace,
)
from codeagent.sandboxes.runtime import Interpreter
from codeagent.sandboxes.slots import SlotPool
from codeagent.sandboxes.sources import TrustedHost
from codeagent.sandboxes.streams import discard
from codeagent.sandboxes.toolchains import check_toolchain
from codeagent.sandboxes.uninterrupted import in_thread
from codeagent.sandboxes.unpacking import unpack
from codeagent.sandboxes.volumes import Volumes
from codeagent.sandboxes.workspaces import OpenWorkspace, Workspaces

SLOT_UIDS = range(200_000, 200_256)


class LocalDriver:
    """See `SandboxDriver`. One driver owns its engine's state directory; a second one on the same is refused.

    At level KERNEL and above a workspace and its base lie in memory: each takes up to `workspace_bytes` of it, and what
    a command writes counts in its `memory_bytes` too. So keep the workspaces of a machine few, and their limits modest.

    `slot_uids`: one is lent to each open workspace, so their number bounds the workspaces. `cgroup_parent`: a delegated
    v2 group to use instead of the worker's own. `trusted_hosts`: hosts that may be reached although their address is
    not public. `parked`: whether the sandbox of a workspace's next command is started before there is one.
    """

    reaches_out = False
    ready = True

    def __init__(
        self,
        engine: Engine,
        slot_uids: range = SLOT_UIDS,
        cgroup_parent: Path | None = None,
        trusted_hosts: Sequence[TrustedHost] = (),
        *,
        parked: bool = True,
    ) -> None:
        self.name = engine.name
        self.level = engine.level
        self._engine = engine
        self._cgroup_parent = cgroup_parent
        self._slot_uids = slot_uids
        self._trusted_hosts = tuple(trusted_hosts)
        self._setup: tuple[object, ...] = (engine.tools, slot_uids, cgroup_parent, self._trusted_hosts, engine.images)
        self._parked = parked
        self._preparing = asyncio.Lock()
        self._workspaces: Workspaces | None = None
        self._report: ProbeReport | None = None
        self._policy_digests: dict[str, str] = {}
        self._lock: int | None = None

    async def probe(self, *, again: bool = False) -> ProbeReport:
        """Runs a sandbox and checks it from inside; the answer is remembered until it is asked for `again`."""
        if again:
            self._report = None
            if reasons := await in_thread(self._engine.missing):
                raise SandboxUnavailable(reasons)
        if self._report is None:
            await self._ready()
            try:
                report = await prove(self, await in_thread(self._engine.version))
                digests = dict(self._policy_digests)
                self._report = replace(report, policy_digest=digests.pop(DEFAULT_IMAGE), images=digests)
            except SandboxUnavailable as unavailable:
                raise SandboxUnavailable([*unavailable.reasons, *self._engine.hints()]) from unavailable
        return self._report

    async def fingerprint(self) -> str:
        """Changes when something that was proven may no longer hold: kernel, program, how the driver is set up."""
        parts = (platform.release(), await in_thread(self._engine.version), self.level, *self._setup)
        return sha256(repr(parts).encode()).hexdigest()

    async def open(
        self,
        workspace_id: str,
        archive: Path,
        patch: bytes,
        limits: Limits,
        toolchain: Toolchain = DEFAULT_TOOLCHAIN,
    ) -> Workspace:
        validate_patch(patch, limits)
        check_toolchain(self.name, toolchain, self._engine.images, dependencies=True)
        workspaces = await self._ready()
        async with workspaces.opening(workspace_id, limits) as workspace:
            workspace.image = toolchain.image
            workspaces.keep_warm(workspace, limits)
            if toolchain.dependencies is not None:
                await workspaces.lay_out(workspace, toolchain.dependencies, limits)
            await unpack(archives.Unpacker(workspace.files, workspace.slot_uid), archive, limits)
            await in_thread(repository.lay_out, workspace.base, workspace.slot_uid, repository.LEFT_OUT_OF_DIFFS)
            box = Box(
                command=repository.base_script(with_patch=bool(patch)),
                workspace=workspace.files,
                environment=repository.ENVIRONMENT,
                binds=(Bind(workspace.base, repository.INSIDE, writable=True),),
                tmp_bytes=limits.tmp_bytes,
            )
            seen = await workspaces.operate(workspace, box, repository.own_limits(limits), discard, patch)
            workspace.tree = repository.tree_of(seen, patch)
            await in_thread(workspaces.seal_base, workspace)
        return workspace

    async def run(self, workspace: Workspace, spec: ExecSpec, sink: OutputSink) -> ExecRecord:
        opened = (await self._ready()).own(workspace)
        box = await self._box(opened, spec)
        if opened.dependencies is not None:
            box = shown_in(box, opened.dependencies)
        return await self._carried_out(opened, box, spec, sink)

    async def install(self, workspace: Workspace, spec: ExecSpec, destination: Path, sink: OutputSink) -> ExecRecord:
        workspaces = await self._ready()
        opened = workspaces.own(workspace)
        box = await self._box(opened, spec)
        async with workspaces.room(opened, spec.limits) as volume:
            record = await self._carried_out(opened, installed_in(box, volume), spec, sink)
            if record.reason is Reason.OK:
                await in_thread(pack, volume, destination, spec.limits)
        return record

    async def _box(self, opened: OpenWorkspace, spec: ExecSpec) -> Box:
        check_command(spec)
        check_reach(self, spec.egress)
        below = beneath.components(spec.cwd)
        if below and not await in_thread(beneath.is_directory, opened.files, spec.cwd):
            raise SandboxFailure("the working directory does not exist", reason="bad_path", retryable=False)
        return Box(
            command=spec.argv,
            workspace=opened.files,
            directory="/".join((WORKSPACE, *below)),
            environment=spec.env,
            tmp_bytes=spec.limits.tmp_bytes,
            # One more for the first process of the sandbox itself.
            max_processes=spec.limits.processes + 1 if self.level is IsolationLevel.RLIMIT else None,
            image=opened.image,
        )

    async def _carried_out(self, opened: OpenWorkspace, box: Box, spec: ExecSpec, sink: OutputSink) -> ExecRecord:
        workspaces = await self._ready()
        if not spec.egress:
            seen = await workspaces.operate(opened, box, spec.limits, sink, spec.stdin)
            return outcome.record(seen, self.name, self.level)
        python = outlets.FOUND if opened.image == DEFAULT_IMAGE else await self._portable_python()
        proxy = Proxy(outlets.hosts(spec.egress, self._trusted_hosts), spec.limits.egress_bytes)
        believed = outlets.authorities_to_believe(spec.egress, self._trusted_hosts)
        async with outlets.opened(opened.directory, opened.slot_uid, proxy, believed) as outlet:
            seen = await workspaces.operate(opened, outlet.added_to(box, python), spec.limits, sink, spec.stdin)
        return outcome.record(seen, self.name, self.level, proxy.connections)

    async def _portable_python(self) -> Interpreter:
        try:
            async with self._preparing:
                return await in_thread(portable.prepare, self._engine.state_dir / "portable")
        except SandboxUnavailable as error:
            raise SandboxFailure(error.detail) from error

    async def read_file(self, workspace: Workspace, path: str, limit_bytes: int) -> bytes:
        opened = (await self._ready()).own(workspace)
        return await in_thread(beneath.read, opened.files, path, limit_bytes)

    async def write_file(self, workspace: Workspace, path: str, data: bytes) -> None:
        opened = (await self._ready()).own(workspace)
        await in_thread(beneath.write, opened.files, path, data, opened.slot_uid)

    async def diff(self, workspace: Workspace, limits: Limits) -> Patch:
        workspaces = await self._ready()
        opened = workspaces.own(workspace)
        box = Box(
            command=repository.diff_script(opened.tree),
            workspace=opened.files,
            writable=False,
            environment=repository.DIFF_ENVIRONMENT,
            binds=(Bind(opened.base, repository.INSIDE),),
            tmp_bytes=max(limits.tmp_bytes, limits.patch_bytes),
        )
        own = repository.own_limits(limits)
        bounded = replace(own, output_kept_bytes=limits.patch_bytes, output_hard_bytes=limits.patch_bytes)
        seen = await workspaces.operate(opened, box, bounded, discard)
        repository.raise_unless_diffed(seen)
        patch = await in_thread(validate_patch, seen.stdout, limits)
        return replace(patch, left_out=repository.left_out(seen.stderr))

    async def close(self, workspace: Workspace) -> None:
        if isinstance(workspace, OpenWorkspace):
            await (await self._ready()).close(workspace)

    async def reap(self, keep: frozenset[str]) -> int:
        return await (await self._ready()).reap(keep)

    async def fetch(
        self, url: str, ref: str, destination: Path, limits: Limits, credential: GitCredential | None = None
    ) -> None:
        fetcher = Fetcher(await self._ready(), self._trusted_hosts)
        await fetcher.fetch(url, ref, destination, limits, credential)

    async def shutdown(self) -> None:
        """Closes every workspace and gives the state directory back. The driver can be used again afterwards."""
        if self._workspaces is not None:
            await self._workspaces.close_all()
            self._workspaces = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _ready(self) -> Workspaces:
        if self._workspaces is None:
            async with self._preparing:
                if self._workspaces is None:
                    self._workspaces = await in_thread(self._prepare)
        return self._workspaces

    def _prepare(self) -> Workspaces:
        reasons = self._engine.missing()
        if reasons:
            raise SandboxUnavailable(reasons)
        root = self._engine.state_dir
        if self._lock is None:
            self._lock = machine.lock(root)
        machine.make_reachable(root)
        groups = None
        if self.level >= IsolationLevel.KERNEL:
            groups = self._control_groups(self._cgroup_parent)
        prepared = Machine(self._engine.prepare(), groups)
        self._policy_digests = {
            image: prepared.launcher.policy_digest(image) for image in (DEFAULT_IMAGE, *self._engine.images)
        }
        is_root = os.geteuid() == 0
        volumes = Volumes(root / "workspaces", mounted=is_root)
        volumes.prepare()
        layouts = Layouts(root / "dependencies")
        layouts.prepare()
        slots = SlotPool(self._slot_uids) if is_root else None
        return Workspaces(prepared, volumes, layouts, slots, parked=self._parked)

    def _control_groups(self, parent: Path | None) -> ControlGroups:
        return machine.control_groups(self._engine.state_dir, cgroup_layout.find_trees(parent=parent))
