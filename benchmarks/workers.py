"""The real workers around a model and a sandbox that answer at once: what is left is what CodeAgent itself costs."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

from codeagent.broker.topics import (
    PROVIDER_EVENTS,
    PROVIDER_WORKER,
    SANDBOX_EVENTS,
    SANDBOX_WORKER,
)
from codeagent.cli.parts import assemble, finish
from codeagent.cli.process import Process, run_process
from codeagent.cli.services import agent_worker, ask_models, deltas, run_commands
from codeagent.messages.conversation import AssistantMessage, ToolCall, Usage
from codeagent.providers.breaker import Breaker
from codeagent.providers.pricing import FREE
from codeagent.providers.protocol import ModelReply, ModelRequest, Price, TextSink
from codeagent.providers.retry import ResilientProvider
from codeagent.quotas.reservations import Reservations
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
    Toolchain,
    Workspace,
)
from codeagent.settings import Settings
from codeagent.workers.bounds import Bounds
from codeagent.workers.provider import ProviderPerformer
from codeagent.workers.sandbox import SandboxPerformer

TOOL_CALLS = 10
EFFECTS_A_RUN = 2 * TOOL_CALLS + 3
"""Prepare, a model call and a command for each tool call, the model call that submits, collect."""


class InstantModel:
    """Asks for a command ten times, then submits."""

    name = "instant"

    def context_window(self, model: str) -> int:
        return 128_000

    def price(self, model: str) -> Price | None:
        return FREE

    async def close(self) -> None:
        pass

    async def generate(self, request: ModelRequest, on_text: TextSink) -> ModelReply:
        turn = sum(message.role == "assistant" for message in request.messages)
        if turn < TOOL_CALLS:
            call = ToolCall(id=f"call_{turn}", name="shell", arguments=json.dumps({"command": f"echo {turn}"}))
        else:
            call = ToolCall(id="call_end", name="submit", arguments='{"summary": "done"}')
        return ModelReply(AssistantMessage(text="Next.", tool_calls=(call,)), Usage(input_tokens=10), Decimal(0))


class Nothing:
    id = name = "nothing"


class InstantDriver:
    """Every command succeeds at once and changes nothing."""

    name = "instant"
    level = IsolationLevel.NONE

    async def probe(self) -> ProbeReport:
        return ProbeReport(self.name, "", self.level, {})

    async def open(
        self,
        workspace_id: str,
        archive: Path,
        patch: bytes,
        limits: Limits,
        toolchain: Toolchain = DEFAULT_TOOLCHAIN,
    ) -> Workspace:
        return Nothing()

    async def run(self, workspace: Workspace, spec: ExecSpec, sink: OutputSink) -> ExecRecord:
        return ExecRecord(
            Reason.OK, 0, None, b"ok\n", b"", 3, 0, (), 0.0, 0.0, 0, self.name, IsolationLevel.NONE
        )  # fmt: skip

    async def install(self, workspace: Workspace, spec: ExecSpec, destination: Path, sink: OutputSink) -> ExecRecord:
        raise AssertionError("nothing is installed here")

    async def diff(self, workspace: Workspace, limits: Limits) -> Patch:
        return Patch(b"", ())

    async def close(self, workspace: Workspace) -> None:
        return


class NoFiles:
    async def put(self, tenant_id: str, data: bytes) -> str:
        raise AssertionError("nothing is large here")

    async def read(self, tenant_id: str, digest: str, limit_bytes: int | None = None) -> bytes:
        return b""

    async def path(self, tenant_id: str, digest: str) -> Path:
        return Path("/dev/null")

    async def put_file(self, tenant_id: str, path: Path) -> tuple[str, int]:
        raise AssertionError("nothing is fetched here")

    async def size(self, tenant_id: str, digest: str) -> int | None:
        raise AssertionError("nothing is installed here")


async def provider_worker(settings: Settings) -> Process:
    parts = await assemble(PROVIDER_WORKER, settings)
    model = ResilientProvider(InstantModel(), Breaker(InstantModel.name))
    performer = ProviderPerformer(
        parts.log, NoFiles(), lambda name: (model, name), deltas(parts), answers_topic=PROVIDER_EVENTS
    )
    ask_models(parts, performer)
    return finish(parts)


async def sandbox_worker(settings: Settings) -> Process:
    parts = await assemble(SANDBOX_WORKER, settings)
    performer = SandboxPerformer(
        InstantDriver(),  # type: ignore[arg-type]  # it fetches and reads nothing
        NoFiles(),
        deltas(parts),
        answers_topic=SANDBOX_EVENTS,
        limits=Bounds(settings.limit_policy(), Reservations(parts.database, settings.sandbox_quota).reserve),
        most_workspaces=settings.sandbox_workspaces,
    )
    run_commands(parts, performer, is_able=lambda: True)
    return finish(parts)


BUILDERS = {"agent": agent_worker, "provider": provider_worker, "sandbox": sandbox_worker}


def run_worker(name: str, settings: Settings) -> int:
    return run_process(lambda: BUILDERS[name](settings))
