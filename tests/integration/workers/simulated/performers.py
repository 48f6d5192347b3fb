"""A model, a sandbox driver and an artifact store that live in memory and wait at gates like everything else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from codeagent.agent.tools import Delegate, ReadFile, Shell, Submit
from codeagent.errors import CodeAgentError
from codeagent.messages.conversation import AssistantMessage, FinishReason, ToolCall, Usage
from codeagent.providers.pricing import FREE
from codeagent.providers.protocol import ModelReply, ModelRequest, Price, ProviderError, TextSink
from codeagent.sandboxes.patch_text import MemoryFile, make_patch
from codeagent.sandboxes.patches import validate_patch
from codeagent.sandboxes.protocol import (
    DEFAULT_TOOLCHAIN,
    ExecRecord,
    ExecSpec,
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
from codeagent.sandboxes.toolchains import check_toolchain
from codeagent.workers.effect import Performer, Work
from codeagent.workers.ended import Ended
from tests.integration.workers.simulated.gates import Process

TOKEN: ContextVar[UUID] = ContextVar("token")
"""The claim under which the running task works."""


FILE = "lines.txt"


def line(number: int) -> str:
    return f"line-{number}"


class Blobs:
    """The artifact store. Processes die; what was stored stays."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    async def put(self, _tenant_id: str, data: bytes) -> str:
        digest = f"sha256:{sha256(data).hexdigest()}"
        self._kept[digest] = data
        return digest

    async def read(self, _tenant_id: str, digest: str, limit_bytes: int | None = None) -> bytes:
        return self._kept[digest]

    async def path(self, _tenant_id: str, digest: str) -> Path:
        return Path(digest)

    async def put_file(self, tenant_id: str, path: Path) -> tuple[str, int]:
        data = path.read_bytes()
        return await self.put(tenant_id, data), len(data)

    async def size(self, _tenant_id: str, digest: str) -> int | None:
        return len(self._kept[digest]) if digest in self._kept else None


async def unwatched(_key: str, _value: bytes) -> None:
    """Where deltas go: nobody watches."""


class LineModel:
    """Hands its task on first where it can; then asks for one line after the other, each then read so many times at
    once; then submits, or never answers."""

    name = "test"

    def __init__(self, process: Process, lines: int, reads: int, *, hangs: bool) -> None:
        self._process = process
        self._lines = lines
        self._reads = reads
        self._hangs = hangs

    def context_window(self, _model: str) -> int:
        return 100_000

    def price(self, _model: str) -> Price | None:
        return FREE

    async def close(self) -> None:
        """Nothing is open."""

    async def generate(self, request: ModelRequest, on_text: TextSink) -> ModelReply:
        said = sum(isinstance(message, AssistantMessage) for message in request.messages)
        turn = said - any(tool.name == Delegate.TOOL for tool in request.tools)

        async def answer() -> ModelReply:
            if turn < 0:
                asked: list[tuple[str, dict[str, str]]] = [(Delegate.TOOL, {"task": "lines"})]
            elif turn < self._lines:
                asked = [(Shell.TOOL, {"command": line(turn)}), *((ReadFile.TOOL, {"path": FILE}),) * self._reads]
            else:
                asked = [(Submit.TOOL, {"summary": "done"})]
            calls = tuple(
                ToolCall(id=f"call_{turn}_{number}", name=name, arguments=json.dumps(arguments))
                for number, (name, arguments) in enumerate(asked)
            )
            usage = Usage(input_tokens=1, output_tokens=1)
            return ModelReply(AssistantMessage(tool_calls=calls), usage, None, FinishReason.TOOL_CALLS)

        await on_text("thinking")
        if self._hangs and turn == self._lines:
            await asyncio.get_running_loop().create_future()
        reply: ModelReply = await self._process.pass_gate("work", f"model answers turn {turn}", answer, _overloaded)
        return reply


def _overloaded() -> CodeAgentError:
    return ProviderError("too busy", reason="overloaded", retryable=True)


def _sandbox_failed() -> CodeAgentError:
    return SandboxFailure("the sandbox failed")


@dataclass(eq=False)
class Space:
    """A workspace whose only content is the lines that commands have appended. `writer`: whose changes are in it
    that no checkpoint holds yet; `installed`: whether its commands find what they depend on."""

    id: str
    text: bytes
    writer: UUID | None = None
    closed: bool = False
    installed: bool = False

    @property
    def name(self) -> str:
        return self.id


def text_of(patch: bytes) -> bytes:
    """What a checkpoint has made of the empty file."""
    added = [line for line in patch.splitlines(keepends=True) if line.startswith(b"+") and not line.startswith(b"+++")]
    return b"".join(line[1:] for line in added)


class LineDriver:
    """A sandbox driver: a command appends its own text. A checkpoint is the whole text.

    `accuse` is told when two claims write one workspace, and when a command begins without what it depends on.
    """

    name = "lines"
    level = IsolationLevel.NONE
    reaches_out = False

    def __init__(self, process: Process, accuse: Callable[[str], None], *, installs: bool = False) -> None:
        self._process = process
        self._accuse = accuse
        self._installs = installs
        self._spaces: dict[str, Space] = {}
        self._opening: set[str] = set()

    async def _gate(self, name: str) -> None:
        async def nothing() -> None:
            pass

        await self._process.pass_gate("work", name, nothing, _sandbox_failed)

    async def probe(self) -> ProbeReport:
        return ProbeReport(self.name, "1", self.level, {})

    def _own(self, workspace: Workspace) -> Space:
        if not isinstance(workspace, Space) or workspace.closed:
            raise SandboxFailure("the workspace is closed", reason="closed", retryable=False)
        return workspace

    async def open(
        self,
        workspace_id: str,
        archive: Path,
        patch: bytes,
        limits: Limits,
        toolchain: Toolchain = DEFAULT_TOOLCHAIN,
    ) -> Workspace:
        check_toolchain(self.name, toolchain, dependencies=True)
        if workspace_id in self._opening:
            raise SandboxFailure("the workspace is being opened", reason="busy")
        self._opening.add(workspace_id)
        try:
            await self._gate("workspace opens")
        finally:
            self._opening.discard(workspace_id)
        left = self._spaces.pop(workspace_id, None)
        if left is not None:
            left.closed = True
        space = self._spaces[workspace_id] = Space(workspace_id, text_of(patch))
        space.installed = toolchain.dependencies is not None
        return space

    async def install(self, workspace: Workspace, spec: ExecSpec, destination: Path, sink: OutputSink) -> ExecRecord:
        await self._gate("installation ends")
        self._own(workspace)
        destination.write_bytes(b"six")
        return self._ended_well()

    async def run(self, workspace: Workspace, spec: ExecSpec, sink: OutputSink) -> ExecRecord:
        await self._gate("command starts")
        space, token = self._own(workspace), TOKEN.get()
        if space.writer not in {None, token}:
            self._accuse(f"{token} writes into a workspace with unfinished changes of {space.writer}")
        if space.installed is not self._installs:
            self._accuse(f"{token} runs a command without what it depends on")
        space.writer = token
        space.text += f"{spec.argv[-1]}\n".encode()
        try:
            await self._gate("command ends")
        except asyncio.CancelledError:
            await self._gate("command is ended")
            raise
        self._own(space)
        return self._ended_well()

    def _ended_well(self) -> ExecRecord:
        return ExecRecord(Reason.OK, 0, None, b"", b"", 0, 0, (), 0.0, 0.0, 0, self.name, self.level)

    async def read_file(self, workspace: Workspace, path: str, limit_bytes: int) -> bytes:
        space = self._own(workspace)
        if path != FILE:
            return b"six==1.17.0"
        if space.writer is not None:
            self._accuse(f"{TOKEN.get()} reads beside unfinished changes of {space.writer}")
        text = space.text
        await self._gate("file is read")
        self._own(space)
        if space.text != text or space.writer is not None:
            self._accuse(f"{TOKEN.get()} was reading while {space.writer} changed the file")
        return text

    async def diff(self, workspace: Workspace, limits: Limits) -> Patch:
        space, token = self._own(workspace), TOKEN.get()
        if space.writer not in {None, token}:
            self._accuse(f"{token} takes a checkpoint with unfinished changes of {space.writer}")
        await self._gate("checkpoint is taken")
        self._own(space).writer = None
        return validate_patch(make_patch({}, {FILE: MemoryFile(space.text)} if space.text else {}), limits)

    async def close(self, workspace: Workspace) -> None:
        assert isinstance(workspace, Space)
        workspace.closed = True
        if self._spaces.get(workspace.id) is workspace:
            del self._spaces[workspace.id]


class Watched:
    """A real performer. What it uses learns for whom it works; an effect is performed once at a time."""

    def __init__(self, performer: Performer, accuse: Callable[[str], None]) -> None:
        self.kind = performer.kind
        self.answers_topic = performer.answers_topic
        self.ended = performer.ended
        self._performer = performer
        self._accuse = accuse
        self._working: dict[UUID, UUID] = {}

    async def perform(self, work: Work) -> Ended:
        effect_id, token = work.claim.effect_id, work.claim.token
        if effect_id in self._working:
            self._accuse(f"claim {token} works beside claim {self._working[effect_id]} in one process")
        self._working[effect_id] = token
        TOKEN.set(token)
        try:
            return await self._performer.perform(work)
        finally:
            if self._working.get(effect_id) == token:
                del self._working[effect_id]
