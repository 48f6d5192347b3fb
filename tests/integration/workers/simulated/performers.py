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

from codeagent.agent.tools import Shell, Submit
from codeagent.errors import CodeAgentError
from codeagent.messages.conversation import AssistantMessage, FinishReason, ToolCall, Usage
from codeagent.providers.protocol import ModelReply, ModelRequest, ProviderError, TextSink
from codeagent.sandboxes.patch_text import MemoryFile, make_patch
from codeagent.sandboxes.patches import validate_patch
from codeagent.sandboxes.protocol import (
    ExecRecord,
    ExecSpec,
    IsolationLevel,
    Limits,
    OutputSink,
    Patch,
    ProbeReport,
    Reason,
    SandboxFailure,
    Workspace,
)
from codeagent.workers.effect import Performer, Work
from codeagent.workers.ended import Ended
from tests.integration.workers.simulated.gates import Process

TOKEN: ContextVar[UUID] = ContextVar("token")
"""The claim under which the running task works."""


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

    async def put_file(self, _tenant_id: str, path: Path) -> tuple[str, int]:
        raise NotImplementedError("every run starts from an archive")


async def unwatched(_key: str, _value: bytes) -> None:
    """Where deltas go: nobody watches."""


class LineModel:
    """Asks for one line after the other; then submits, or never answers."""

    name = "test"

    def __init__(self, process: Process, lines: int, *, hangs: bool) -> None:
        self._process = process
        self._lines = lines
        self._hangs = hangs

    def context_window(self, _model: str) -> int:
        return 100_000

    async def generate(
        self, request: ModelRequest, on_text: TextSink, on_attempt: Callable[[int], None] | None = None
    ) -> ModelReply:
        turn = sum(isinstance(message, AssistantMessage) for message in request.messages)

        async def answer() -> ModelReply:
            if turn < self._lines:
                name, arguments = Shell.TOOL, {"command": line(turn)}
            else:
                name, arguments = Submit.TOOL, {"summary": "done"}
            call = ToolCall(id=f"call_{turn}", name=name, arguments=json.dumps(arguments))
            usage = Usage(input_tokens=1, output_tokens=1)
            return ModelReply(AssistantMessage(tool_calls=(call,)), usage, None, FinishReason.TOOL_CALLS)

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
    that no checkpoint holds yet."""

    id: str
    text: bytes
    writer: UUID | None = None
    closed: bool = False


def text_of(patch: bytes) -> bytes:
    """What a checkpoint has made of the empty file."""
    added = [line for line in patch.splitlines(keepends=True) if line.startswith(b"+") and not line.startswith(b"+++")]
    return b"".join(line[1:] for line in added)


class LineDriver:
    """A sandbox driver: a command appends its own text. A checkpoint is the whole text.

    `accuse` is told when two claims write one workspace.
    """

    name = "lines"
    level = IsolationLevel.NONE
    reaches_out = False

    def __init__(self, process: Process, accuse: Callable[[str], None]) -> None:
        self._process = process
        self._accuse = accuse
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

    async def open(self, workspace_id: str, archive: Path, patch: bytes, limits: Limits) -> Workspace:
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
        return space

    async def run(self, workspace: Workspace, spec: ExecSpec, sink: OutputSink) -> ExecRecord:
        await self._gate("command starts")
        space, token = self._own(workspace), TOKEN.get()
        if space.writer not in {None, token}:
            self._accuse(f"{token} writes into a workspace with unfinished changes of {space.writer}")
        space.writer = token
        space.text += f"{spec.argv[-1]}\n".encode()
        try:
            await self._gate("command ends")
        except asyncio.CancelledError:
            await self._gate("command is ended")
            raise
        self._own(space)
        return ExecRecord(Reason.OK, 0, None, b"", b"", 0, 0, (), 0.0, 0.0, 0, self.name, self.level)

    async def diff(self, workspace: Workspace, limits: Limits) -> Patch:
        space, token = self._own(workspace), TOKEN.get()
        if space.writer not in {None, token}:
            self._accuse(f"{token} takes a checkpoint with unfinished changes of {space.writer}")
        await self._gate("checkpoint is taken")
        self._own(space).writer = None
        return validate_patch(make_patch({}, {"lines.txt": MemoryFile(space.text)} if space.text else {}), limits)

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
