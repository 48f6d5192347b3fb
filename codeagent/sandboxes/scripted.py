"""The sandbox driver that executes nothing: files in memory, and answers from a script. For tests and benchmarks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from codeagent.addresses import is_public
from codeagent.sandboxes import archives, beneath, dependencies, outcome
from codeagent.sandboxes.commands import check_command, check_reach
from codeagent.sandboxes.outcome import Observed
from codeagent.sandboxes.patch_text import MemoryFile, apply_patch, make_patch
from codeagent.sandboxes.patches import validate_patch
from codeagent.sandboxes.protocol import (
    DEFAULT_TOOLCHAIN,
    Connection,
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
    Toolchain,
    Workspace,
)
from codeagent.sandboxes.sources import check_ref, parse_source
from codeagent.sandboxes.toolchains import check_toolchain
from codeagent.sandboxes.uninterrupted import in_thread


@dataclass(frozen=True, slots=True)
class Scripted:
    """What a command of the script does. `seconds` it really takes; `writes` maps paths to content, `None` deletes."""

    exit_code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    seconds: float = 0.0
    oom_kills: int = 0
    writes: Mapping[str, bytes | None] = field(default_factory=dict)
    connections: tuple[Connection, ...] = ()


Script = Callable[[ExecSpec, Mapping[str, bytes]], Scripted | Awaitable[Scripted]]


def succeed(_spec: ExecSpec, _files: Mapping[str, bytes]) -> Scripted:
    """The script of a world in which everything works and says nothing."""
    return Scripted()


@dataclass(eq=False)
class _Memory:
    id: str
    limits: Limits
    base: dict[str, MemoryFile]
    files: dict[str, MemoryFile]
    links: frozenset[str]
    directories: set[str]
    script: Script = succeed
    installed: dict[str, bytes] = field(default_factory=dict)
    root: str = ""
    closed: bool = False
    running: set[asyncio.Future[Scripted]] = field(default_factory=set)

    @property
    def name(self) -> str:
        return self.id

    def is_directory(self, path: str) -> bool:
        return not path or path in self.directories or any(name.startswith(path + "/") for name in self.files)


class ScriptedDriver:
    """See `SandboxDriver`. `script` decides what each command does, and a script of `images` in the image of that name;
    `repositories` maps URLs to what `fetch` finds; with `reaches_out` commands make the connections of the script."""

    name = "scripted"
    level = IsolationLevel.NONE

    def __init__(
        self,
        script: Script = succeed,
        repositories: Mapping[str, Mapping[str, bytes]] | None = None,
        images: Mapping[str, Script] | None = None,
        *,
        reaches_out: bool = False,
    ) -> None:
        self.reaches_out = reaches_out
        self._script = script
        self._images = dict(images or {})
        self._repositories = dict(repositories or {})
        self._workspaces: dict[str, _Memory] = {}

    async def probe(self) -> ProbeReport:
        facts = {"executes_nothing": True}
        return ProbeReport(self.name, "1", self.level, facts, images=dict.fromkeys(self._images, ""))

    async def open(
        self,
        workspace_id: str,
        archive: Path,
        patch: bytes,
        limits: Limits,
        toolchain: Toolchain = DEFAULT_TOOLCHAIN,
    ) -> Workspace:
        validate_patch(patch, limits)
        check_toolchain(self.name, toolchain, self._images, dependencies=True)
        left = self._workspaces.pop(workspace_id, None)
        if left is not None:
            await self.close(left)
        memory = await in_thread(_load, workspace_id, archive, limits)
        memory.script = self._images.get(toolchain.image, self._script)
        memory.files = apply_patch(memory.base, patch)
        if toolchain.dependencies is not None:
            memory.installed = await in_thread(_installed, toolchain.dependencies, limits)
        self._workspaces[workspace_id] = memory
        return memory

    async def run(self, workspace: Workspace, spec: ExecSpec, sink: OutputSink) -> ExecRecord:
        memory = _own(workspace)
        return await self._carried_out(memory, memory, spec, sink)

    async def install(self, workspace: Workspace, spec: ExecSpec, destination: Path, sink: OutputSink) -> ExecRecord:
        bounds = dependencies.bounds(spec.limits)
        volume = _Memory("", bounds, {}, {}, frozenset(), set(), root=f"{dependencies.INSIDE}/")
        record = await self._carried_out(_own(workspace), volume, spec, sink)
        if record.reason is Reason.OK:
            installed = {path: file.data for path, file in volume.files.items()}
            await in_thread(archives.pack_files, installed, destination, bounds)
        return record

    async def _carried_out(self, memory: _Memory, into: _Memory, spec: ExecSpec, sink: OutputSink) -> ExecRecord:
        """What the command writes is in `into` then."""
        check_command(spec)
        check_reach(self, spec.egress)
        if not memory.is_directory("/".join(beneath.components(spec.cwd))):
            raise SandboxFailure("the working directory does not exist", reason="bad_path", retryable=False)
        began = time.monotonic()
        stopped: Reason | None = None
        task = asyncio.ensure_future(self._perform(memory, into, spec))
        memory.running.add(task)
        try:
            done, _ = await asyncio.wait({task}, timeout=spec.limits.wall_seconds)
            stopped = Reason.TIMEOUT if not done else Reason.CANCELED if task.cancelled() else None
            answer = Scripted() if stopped else task.result()
        finally:
            memory.running.discard(task)
            task.cancel()
        kept = [text[: spec.limits.output_kept_bytes] for text in (answer.stdout, answer.stderr)]
        for stream, text in zip(("stdout", "stderr"), kept, strict=True):
            if text:
                await sink(stream, text)
        if max(len(answer.stdout), len(answer.stderr)) > spec.limits.output_hard_bytes:
            stopped = Reason.OUTPUT_LIMIT
        seen = Observed(
            stopped=stopped,
            exit_code=None if stopped else answer.exit_code,
            oom_kills=answer.oom_kills,
            pids_refused=0,
            disk_full=False,
            inodes_used_up=False,
            cpu_time_used_up=False,
            stdout=kept[0],
            stderr=kept[1],
            stdout_seen_bytes=len(answer.stdout),
            stderr_seen_bytes=len(answer.stderr),
            wall_seconds=time.monotonic() - began,
            cpu_seconds=0.0,
            peak_memory_bytes=0,
        )
        return outcome.record(seen, self.name, self.level, answer.connections)

    async def _perform(self, memory: _Memory, into: _Memory, spec: ExecSpec) -> Scripted:
        answer = memory.script(spec, memory.installed | {path: file.data for path, file in memory.files.items()})
        scripted = answer if isinstance(answer, Scripted) else await answer
        await asyncio.sleep(scripted.seconds)
        for path, data in scripted.writes.items():
            if data is None:
                into.files.pop(path, None)
            elif path.startswith(into.root):
                _write(into, path.removeprefix(into.root), data)
        return scripted

    async def read_file(self, workspace: Workspace, path: str, limit_bytes: int) -> bytes:
        memory = _own(workspace)
        name = _file_name(memory, path)
        file = memory.files.get(name)
        if file is None:
            raise SandboxFailure("there is no such file", reason="no_such_file", retryable=False)
        if len(file.data) > limit_bytes:
            raise SandboxFailure(f"the file has {len(file.data)} bytes", reason="too_large", retryable=False)
        return file.data

    async def write_file(self, workspace: Workspace, path: str, data: bytes) -> None:
        _write(_own(workspace), path, data)

    async def diff(self, workspace: Workspace, limits: Limits) -> Patch:
        memory = _own(workspace)
        return validate_patch(make_patch(memory.base, memory.files), limits)

    async def close(self, workspace: Workspace) -> None:
        if isinstance(workspace, _Memory):
            workspace.closed = True
            for task in list(workspace.running):
                task.cancel()
            if self._workspaces.get(workspace.id) is workspace:
                del self._workspaces[workspace.id]

    async def reap(self, keep: frozenset[str]) -> int:
        doomed = [memory for memory in self._workspaces.values() if memory.id not in keep]
        for memory in doomed:
            await self.close(memory)
        return len(doomed)

    async def fetch(
        self, url: str, ref: str, destination: Path, limits: Limits, credential: GitCredential | None = None
    ) -> None:
        source = parse_source(url)
        check_ref(ref)
        try:
            refused = source.host == "localhost" or not is_public(ip_address(source.host))
        except ValueError:
            refused = False
        if refused:
            raise SandboxFailure("the host has no public address", reason="address_refused", retryable=False)
        if url not in self._repositories:
            raise SandboxFailure("there is no such repository", reason="not_found", retryable=False)
        await in_thread(archives.pack_files, self._repositories[url], destination, limits)


def _own(workspace: Workspace) -> _Memory:
    if not isinstance(workspace, _Memory) or workspace.closed:
        raise SandboxFailure("the workspace is closed", reason="closed", retryable=False)
    return workspace


def _installed(archive: Path, limits: Limits) -> dict[str, bytes]:
    """Files by the path that a command knows them by."""
    found = archives.entries(archive, dependencies.bounds(limits), dependencies.kept_link)
    return {f"{dependencies.INSIDE}/{entry.path}": entry.content.read() for entry in found if entry.content}


def _load(workspace_id: str, archive: Path, limits: Limits) -> _Memory:
    files: dict[str, MemoryFile] = {}
    links, directories = set(), set()
    for entry in archives.entries(archive, limits):
        if entry.is_directory:
            directories.add(entry.path)
        elif entry.target:
            links.add(entry.path)
        else:
            files[entry.path] = MemoryFile(entry.content.read() if entry.content else b"", entry.executable)
    return _Memory(workspace_id, limits, files, dict(files), frozenset(links), directories)


def _file_name(memory: _Memory, path: str) -> str:
    """The normal form of `path`, if it may name a regular file. Raises `SandboxFailure`."""
    parts = beneath.components(path)
    name = "/".join(parts)
    parents = {"/".join(parts[:depth]) for depth in range(1, len(parts))}
    if memory.is_directory(name) or name in memory.links or parents & (memory.files.keys() | memory.links):
        raise SandboxFailure("the path is not a regular file", reason="not_a_file", retryable=False)
    return name


def _write(memory: _Memory, path: str, data: bytes) -> None:
    name = _file_name(memory, path)
    old = memory.files.get(name)
    size = sum(len(file.data) for file in memory.files.values()) - (len(old.data) if old else 0)
    if size + len(data) > memory.limits.workspace_bytes:
        raise SandboxFailure("the workspace is full", reason="workspace_full", retryable=False)
    memory.files[name] = MemoryFile(data, old.executable if old else False)
