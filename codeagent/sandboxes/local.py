"""Drivers whose sandboxes are programs on this machine, one for each operation. What starts them is an `Engine`."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

from codeagent.sandboxes import archives, beneath, cgroup_layout, machine, outcome, outlets, repository
from codeagent.sandboxes.box import WORKSPACE, Bind, Box
from codeagent.sandboxes.cgroups import ControlGroups
from codeagent.sandboxes.commands import check_command, check_reach
from codeagent.sandboxes.egress import Proxy
from codeagent.sandboxes.fetch import Fetcher
from codeagent.sandboxes.launcher import Engine
from codeagent.sandboxes.launches import Machine
from codeagent.sandboxes.outcome import Observed
from codeagent.sandboxes.patches import validate_patch
from codeagent.sandboxes.probe import prove
from codeagent.sandboxes.protocol import (
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
    Workspace,
)
from codeagent.sandboxes.slots import SlotPool
from codeagent.sandboxes.sources import TrustedHost
from codeagent.sandboxes.streams import discard
from codeagent.sandboxes.uninterrupted import in_stoppable_thread, in_thread
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
        self._setup: tuple[object, ...] = (engine.tools, slot_uids, cgroup_parent, self._trusted_hosts)
        self._parked = parked
        self._preparing = asyncio.Lock()
        self._workspaces: Workspaces | None = None
        self._report: ProbeReport | None = None
        self._policy_digest = ""
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
                self._report = replace(report, policy_digest=self._policy_digest)
            except SandboxUnavailable as unavailable:
                raise SandboxUnavailable([*unavailable.reasons, *self._engine.hints()]) from unavailable
        return self._report

    async def fingerprint(self) -> str:
        """Changes when something that was proven may no longer hold: kernel, program, how the driver is set up."""
        parts = (platform.release(), await in_thread(self._engine.version), self.level, *self._setup)
        return sha256(repr(parts).encode()).hexdigest()

    async def open(self, workspace_id: str, archive: Path, patch: bytes, limits: Limits) -> Workspace:
        validate_patch(patch, limits)
        workspaces = await self._ready()
        async with workspaces.opening(workspace_id, limits) as workspace:
            workspaces.keep_warm(workspace, limits)
            await self._unpack(workspace, archive, limits)
            await in_thread(repository.lay_out, workspace.base, workspace.slot_uid, repository.LEFT_OUT_OF_DIFFS)
            box = Box(
                command=repository.base_script(with_patch=bool(patch)),
                workspace=workspace.files,
                environment=repository.ENVIRONMENT,
                binds=(Bind(workspace.base, repository.INSIDE, writable=True),),
                tmp_bytes=limits.tmp_bytes,
            )
            seen = await workspaces.operate(workspace, box, limits, discard, patch)
            workspace.tree = _tree(seen, patch)
            await in_thread(workspaces.seal_base, workspace)
        return workspace

    async def _unpack(self, workspace: OpenWorkspace, archive: Path, limits: Limits) -> None:
        unpacker = archives.Unpacker(workspace.files, workspace.slot_uid)
        try:
            await in_stoppable_thread(partial(unpacker.unpack, archive, limits))
        except OSError as error:
            raise SandboxFailure(f"the archive cannot be read: {error.strerror}") from error

    async def run(self, workspace: Workspace, spec: ExecSpec, sink: OutputSink) -> ExecRecord:
        workspaces = await self._ready()
        opened = workspaces.own(workspace)
        check_command(spec)
        check_reach(self, spec.egress)
        below = beneath.components(spec.cwd)
        if below and not await in_thread(beneath.is_directory, opened.files, spec.cwd):
            raise SandboxFailure("the working directory does not exist", reason="bad_path", retryable=False)
        box = Box(
            command=spec.argv,
            workspace=opened.files,
            directory="/".join((WORKSPACE, *below)),
            environment=spec.env,
            tmp_bytes=spec.limits.tmp_bytes,
            # One more for the first process of the sandbox itself.
            max_processes=spec.limits.processes + 1 if self.level is IsolationLevel.RLIMIT else None,
        )
        if not spec.egress:
            seen = await workspaces.operate(opened, box, spec.limits, sink, spec.stdin)
            return outcome.record(seen, self.name, self.level)
        proxy = Proxy(outlets.hosts(spec.egress, self._trusted_hosts), spec.limits.egress_bytes)
        believed = outlets.authorities_to_believe(spec.egress, self._trusted_hosts)
        async with outlets.opened(opened.directory, opened.slot_uid, proxy, believed) as outlet:
            seen = await workspaces.operate(opened, outlet.added_to(box), spec.limits, sink, spec.stdin)
        return outcome.record(seen, self.name, self.level, proxy.connections)

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
        bounded = replace(limits, output_kept_bytes=limits.patch_bytes, output_hard_bytes=limits.patch_bytes)
        seen = await workspaces.operate(opened, box, bounded, discard)
        _raise_unless_diffed(seen)
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
        self._policy_digest = prepared.launcher.policy_digest()
        is_root = os.geteuid() == 0
        volumes = Volumes(root / "workspaces", mounted=is_root)
        volumes.prepare()
        return Workspaces(prepared, volumes, SlotPool(self._slot_uids) if is_root else None, parked=self._parked)

    def _control_groups(self, parent: Path | None) -> ControlGroups:
        return machine.control_groups(self._engine.state_dir, cgroup_layout.find_trees(parent=parent))


def _tree(seen: Observed, patch: bytes) -> str:
    """The name of the base tree, or the failure that kept the workspace from being made."""
    reason = outcome.reason_for(seen)
    if reason is Reason.OK:
        return seen.stdout.decode("ascii").strip()
    if seen.disk_full or seen.inodes_used_up or b"No space left" in seen.stderr:
        raise SandboxFailure("the workspace is full", reason="workspace_full", retryable=False)
    if reason is Reason.EXIT and patch and seen.stdout:
        raise SandboxFailure("the patch does not apply to the archive", reason="patch_conflict", retryable=False)
    raise SandboxFailure(f"the workspace cannot be made ({reason}): {outcome.last_words(seen.stderr)}")


def _raise_unless_diffed(seen: Observed) -> None:
    reason = outcome.reason_for(seen)
    if reason is Reason.OK:
        return
    if reason is Reason.CANCELED:
        raise SandboxFailure("the workspace was closed", reason="closed", retryable=False)
    if reason in (Reason.OUTPUT_LIMIT, Reason.OOM) or b"No space left" in seen.stderr:
        raise SandboxFailure("the changes are larger than a patch may be", reason="patch_too_large", retryable=False)
    words = outcome.last_words(seen.stderr)
    if reason is Reason.EXIT:
        # For example a repository nested in the workspace: its files would be missing from the patch.
        raise SandboxFailure(f"the changes cannot be told: {words}", reason="patch_refused", retryable=False)
    raise SandboxFailure(f"the changes cannot be told ({reason}): {words}", retryable=reason is not Reason.TIMEOUT)
