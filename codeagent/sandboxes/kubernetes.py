"""The driver whose sandboxes are pods of a Kubernetes cluster: a hardened one for each workspace.

Memory, processor and disk are the pod's, fixed when it is opened; time, output, files and processes are each command's.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import secrets
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from codeagent.sandboxes import beneath, machine, outcome, pod_files, pod_probe, pod_states, pods, repository
from codeagent.sandboxes.cluster import Cluster, ClusterApi
from codeagent.sandboxes.commands import check_command, check_reach
from codeagent.sandboxes.outcome import last_words
from codeagent.sandboxes.patches import validate_patch
from codeagent.sandboxes.pod_commands import Command, PodWorkspace
from codeagent.sandboxes.pod_lifecycle import Pods
from codeagent.sandboxes.protocol import (
    DEFAULT_TOOLCHAIN,
    ExecRecord,
    ExecSpec,
    GitCredential,
    IsolationLevel,
    Limits,
    OutputSink,
    Patch,
    ProbeReport,
    SandboxFailure,
    SandboxUnavailable,
    Toolchain,
    Workspace,
)
from codeagent.sandboxes.sources import check_ref, parse_source
from codeagent.sandboxes.toolchains import check_toolchain
from codeagent.sandboxes.uninterrupted import in_thread, to_the_end

OWNER = "owner"
"""The file of the state directory that a worker is known by in the cluster."""
_NAME = re.compile(rb"[0-9a-f]{20}")
_AT_ONCE = 16

_log = logging.getLogger(__name__)


class KubernetesDriver:
    """See `SandboxDriver`. `state_dir` keeps the name under which the pods are known to be this worker's."""

    name = "kubernetes"
    reaches_out = False
    ready = True

    def __init__(self, state_dir: Path, cluster: Cluster, level: IsolationLevel = IsolationLevel.OWN_KERNEL) -> None:
        self.level = level
        self._state_dir = state_dir
        self._cluster = cluster
        self._api = ClusterApi(cluster)
        self._pods: Pods | None = None
        self._preparing = asyncio.Lock()
        self._live: dict[str, PodWorkspace] = {}
        self._opening: set[str] = set()
        self._report: ProbeReport | None = None
        self._lock: int | None = None

    async def probe(self, *, again: bool = False) -> ProbeReport:
        """Makes a pod and checks it from inside; the answer is remembered until it is asked for `again`."""
        if again:
            self._report = None
        if self._report is None:
            if reasons := await in_thread(self._cluster.missing):
                raise SandboxUnavailable(reasons)
            try:
                await self._ready()
                version = await self._version()
            except SandboxFailure as failure:
                raise SandboxUnavailable([str(failure)]) from failure
            report = await pod_probe.prove(self, self._cluster.address, version)
            self._report = replace(report, policy_digest=self._policy_digest())
        return self._report

    async def fingerprint(self) -> str:
        """Changes when something that was proven may no longer hold: the cluster's version, the driver's set-up."""
        try:
            version = await self._version()
        except SandboxFailure:
            version = "unknown"
        return hashlib.sha256(repr((version, self.level, self._cluster)).encode()).hexdigest()

    async def _version(self) -> str:
        told = await self._api.ask("GET", "/version")
        return f"Kubernetes {last_words(str(told.get('gitVersion', '')).encode())}"

    def _policy_digest(self) -> str:
        manifest = pods.pod("", {}, self._cluster.image, Limits(), self.level, self._cluster.runtime_class)
        return f"sha256:{hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()}"

    async def open(
        self,
        workspace_id: str,
        archive: Path,
        patch: bytes,
        limits: Limits,
        toolchain: Toolchain = DEFAULT_TOOLCHAIN,
    ) -> Workspace:
        validate_patch(patch, limits)
        check_toolchain(self.name, toolchain, dependencies=False)
        made = await self._ready()
        key = made.key(workspace_id)
        if key in self._opening:
            raise SandboxFailure("the workspace is being opened", reason="busy")
        self._opening.add(key)
        try:
            if (left := self._live.get(key)) is not None:
                await self.close(left)
            pod = await made.make(workspace_id, limits)
            workspace = PodWorkspace(workspace_id, pod["metadata"]["name"], pod_states.restarts(pod))
            self._live[key] = workspace
            try:
                await pod_files.fill(self._api, workspace.pod, archive, limits)
                script = repository.base_script(with_patch=bool(patch))
                done = await pod_files.git(self._api, workspace.pod, script, repository.ENVIRONMENT, patch, limits)
                workspace.tree = _tree(done, patch)
            except BaseException:
                with suppress(SandboxFailure):  # what made it fail is the answer; the pod is still known
                    await self.close(workspace)
                raise
        finally:
            self._opening.discard(key)
        return workspace

    async def run(self, workspace: Workspace, spec: ExecSpec, sink: OutputSink) -> ExecRecord:
        opened = self._own(workspace)
        check_command(spec)
        check_reach(self, spec.egress)
        below = beneath.components(spec.cwd)
        async with opened.turn:
            self._own(workspace)
            if below:
                await self._check_directory(opened, below)
            command = Command(self._api, await self._ready(), opened)
            seen = await command.run(spec, below, sink)
        return outcome.record(seen, self.name, self.level)

    async def install(self, workspace: Workspace, spec: ExecSpec, destination: Path, sink: OutputSink) -> ExecRecord:
        """Refused: a pod reaches no registry, and has no volume beside its workspace."""
        self._own(workspace)
        raise SandboxFailure(f"{self.name} shows no dependencies", reason="dependencies_unsupported", retryable=False)

    async def _check_directory(self, opened: PodWorkspace, below: Sequence[str]) -> None:
        try:
            await pod_files.reach(self._api, opened.pod, {"do": "check", "path": below})
        except SandboxFailure as failure:
            if failure.reason not in ("no_such_file", "not_a_file"):
                raise
            why = "the working directory does not exist"
            raise SandboxFailure(why, reason="bad_path", retryable=False) from None

    async def read_file(self, workspace: Workspace, path: str, limit_bytes: int) -> bytes:
        opened = self._own(workspace)
        request = {"do": "read", "path": _file(path), "limit": limit_bytes}
        data = await pod_files.reach(self._api, opened.pod, request, most_bytes=max(limit_bytes, 1024))
        if len(data) > limit_bytes:
            raise SandboxFailure(f"the file has more than {limit_bytes} bytes", reason="too_large", retryable=False)
        return data

    async def write_file(self, workspace: Workspace, path: str, data: bytes) -> None:
        opened = self._own(workspace)
        request = {"do": "write", "path": _file(path), "size": len(data)}
        await pod_files.reach(self._api, opened.pod, request, data)

    async def diff(self, workspace: Workspace, limits: Limits) -> Patch:
        opened = self._own(workspace)
        # Its index and objects lie in memory, and only as long as it runs.
        script = ("/bin/sh", "-c", "rm -rf /tmp/index /tmp/objects; " + repository.diff_script(opened.tree)[2])
        async with opened.turn:
            self._own(workspace)
            done = await pod_files.git(self._api, opened.pod, script, repository.DIFF_ENVIRONMENT, b"", limits)
        _raise_unless_diffed(done)
        patch = await in_thread(validate_patch, done.stdout, limits)
        return replace(patch, left_out=repository.left_out(done.stderr))

    async def close(self, workspace: Workspace) -> None:
        if isinstance(workspace, PodWorkspace):
            await to_the_end(self._close(workspace))

    async def _close(self, workspace: PodWorkspace) -> None:
        made = await self._ready()
        async with workspace.closing:
            workspace.closed.set()
            key = made.key(workspace.id)
            if self._live.get(key) is workspace:
                await made.remove(workspace.pod)
                del self._live[key]

    async def reap(self, keep: frozenset[str]) -> int:
        made = await self._ready()
        kept = {made.key(workspace_id) for workspace_id in keep} | self._opening
        doomed = {key: name for key, name in (await made.names()).items() if key not in kept}
        await _all_tried([self._reaped(made, key, name) for key, name in doomed.items()])
        for name in await made.abandoned():
            await made.ask_to_end(name)
        return len(doomed)

    async def _reaped(self, made: Pods, key: str, name: str) -> None:
        live = self._live.get(key)
        try:
            await (to_the_end(made.remove(name)) if live is None else self.close(live))
        except SandboxFailure as failure:
            if failure.reason != "stuck":
                raise
            # Its node is out of reach. The cluster ends it when it hears of the node: no reason not to start.
            _log.warning("a pod that was left is not gone yet: %s", name)

    async def fetch(
        self, url: str, ref: str, destination: Path, limits: Limits, credential: GitCredential | None = None
    ) -> None:
        """Refused: a pod reaches nothing, and the worker itself does not run git on what a stranger serves."""
        parse_source(url)
        check_ref(ref)
        why = "pods fetch no repositories: have a worker with another driver do it, or upload the files"
        raise SandboxFailure(why, reason="fetch_unsupported", retryable=False)

    async def shutdown(self) -> None:
        """Closes every workspace and gives the state directory back. The driver can be used again afterwards."""
        try:
            await _all_tried([self.close(workspace) for workspace in self._live.values()])
        finally:
            await self._api.close()
            self._pods = None
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _own(self, workspace: Workspace) -> PodWorkspace:
        if not isinstance(workspace, PodWorkspace) or workspace.closed.is_set():
            raise SandboxFailure("the workspace is closed", reason="closed", retryable=False)
        return workspace

    async def _ready(self) -> Pods:
        async with self._preparing:
            if self._pods is None:
                self._pods = Pods(self._api, await in_thread(self._owner), self.level)
        return self._pods

    def _owner(self) -> str:
        if self._lock is None:
            self._lock = machine.lock(self._state_dir)
        path = self._state_dir / OWNER
        known = path.read_bytes() if path.exists() else b""
        if _NAME.fullmatch(known) is None:
            known = secrets.token_hex(10).encode()
            written = path.with_suffix(".new")
            written.write_bytes(known)
            written.replace(path)
        return known.decode("ascii")


async def _all_tried(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Does all of it, some at a time. Raises the first `SandboxFailure` afterwards."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def in_turn(each: Coroutine[Any, Any, None]) -> None:
        async with turns:
            await each

    answers = await asyncio.gather(*map(in_turn, work), return_exceptions=True)
    if failures := [answer for answer in answers if answer is not None]:
        raise failures[0]


def _file(path: str) -> tuple[str, ...]:
    parts = beneath.components(path)
    if not parts:
        raise SandboxFailure("the path names the workspace itself", reason="not_a_file", retryable=False)
    return parts


def _tree(done: pod_files.Answer, patch: bytes) -> str:
    """The name of the base tree, or the failure that kept the workspace from being made."""
    if done.code == 0:
        return done.stdout.decode("ascii").strip()
    if b"No space left" in done.stderr:
        raise SandboxFailure("the workspace is full", reason="workspace_full", retryable=False)
    if patch and done.stdout:
        raise SandboxFailure("the patch does not apply to the archive", reason="patch_conflict", retryable=False)
    raise SandboxFailure(f"the workspace cannot be made: {last_words(done.stderr)}")


def _raise_unless_diffed(done: pod_files.Answer) -> None:
    if done.too_long or b"No space left" in done.stderr:
        raise SandboxFailure("the changes are larger than a patch may be", reason="patch_too_large", retryable=False)
    if done.code != 0:
        why = f"the changes cannot be told: {last_words(done.stderr)}"
        # A signal comes for want of memory, or from somebody else; else there is a nested repository.
        reason = "patch_refused" if done.code < 128 else "sandbox_error"
        raise SandboxFailure(why, reason=reason, retryable=done.code >= 128)
