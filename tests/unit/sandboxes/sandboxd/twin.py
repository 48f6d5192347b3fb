"""The driver behind the helper in these tests, and the ways it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from codeagent.sandboxes.protocol import (
    DEFAULT_TOOLCHAIN,
    ExecRecord,
    ExecSpec,
    GitCredential,
    Limits,
    OutputSink,
    Patch,
    ProbeReport,
    SandboxFailure,
    SandboxUnavailable,
    Toolchain,
    Workspace,
)
from codeagent.sandboxes.sandboxd.asking import ask
from codeagent.sandboxes.sandboxd.client import RemoteWorkspace
from codeagent.sandboxes.sandboxd.requests import Ceiling
from codeagent.sandboxes.scripted import Scripted, ScriptedDriver
from codeagent.sandboxes.streams import discard

FILES = {"README": b"hello\n"}
LIMITS = Limits()
CEILING = Ceiling(LIMITS, ("packages.example:443", "*.mirror.example:443"), ("registry.example:443",), 900.0)
NEVER = 600.0


def answer(spec: ExecSpec, _: Mapping[str, bytes]) -> Scripted:
    return Scripted(seconds=NEVER if spec.argv == ("wait",) else 0.0, exit_code=int(spec.argv == ("false",)))


class Twin(ScriptedDriver):
    """Remembers what it was asked, and counts what it could say. `broken` is why its proof fails; `told` is its answer
    to commands; `opened` is called when a workspace is there, before anybody is told."""

    ready = True

    def __init__(self) -> None:
        repositories = {"https://git.example/r": FILES}
        super().__init__(answer, repositories=repositories, reaches_out=True, images={"toolchain": answer})
        self.begun = self.said = self.ended = 0
        self.credential: GitCredential | None = None
        self.broken: list[str] = []
        self.proofs = 0
        self.told: ExecRecord | None = None
        self.patch: Patch | None = None
        self.spec = ExecSpec(())
        self.toolchain = DEFAULT_TOOLCHAIN
        self.opened: Callable[[], object] = lambda: None

    async def probe(self, *, again: bool = False) -> ProbeReport:
        self.proofs += again
        if self.broken:
            raise SandboxUnavailable(self.broken)
        return ProbeReport(self.name, "1", self.level, {"holds": True}, f"sha256:{self.proofs}")

    async def fingerprint(self) -> str:
        return f"fingerprint {self.proofs}"

    async def open(
        self,
        workspace_id: str,
        archive: Path,
        patch: bytes,
        limits: Limits,
        toolchain: Toolchain = DEFAULT_TOOLCHAIN,
    ) -> Workspace:
        self.toolchain = toolchain
        workspace = await super().open(workspace_id, archive, patch, limits, toolchain)
        self.opened()
        return workspace

    async def install(self, workspace: Workspace, spec: ExecSpec, destination: Path, sink: OutputSink) -> ExecRecord:
        self.spec = spec
        return await super().install(workspace, spec, destination, sink)

    async def diff(self, workspace: Workspace, limits: Limits) -> Patch:
        return self.patch or await super().diff(workspace, limits)

    async def run(self, workspace: Workspace, spec: ExecSpec, sink: OutputSink) -> Any:
        self.begun += 1
        self.spec = spec
        if self.told is not None:
            return self.told
        try:
            while spec.argv == ("talk",):
                await sink("stdout", bytes(64 << 10))
                self.said += 1
            return await super().run(workspace, spec, sink)
        finally:
            self.ended += 1

    async def fetch(
        self, url: str, ref: str, destination: Path, limits: Limits, credential: GitCredential | None = None
    ) -> None:
        self.credential = credential
        await super().fetch(url, ref, destination, limits, credential)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def words(operation: str, **more: object) -> dict[str, Any]:
    return {"operation": operation, **more}


RUN = {"argv": ["true"], "cwd": ".", "env": {}, "limits": asdict(LIMITS), "egress": []}


async def refusal(workspace: RemoteWorkspace, request: Mapping[str, Any], *handles: int) -> str:
    with pytest.raises(SandboxFailure) as caught:
        await ask(workspace.session.connection, request, b"", handles, discard, 10.0)
    assert not caught.value.retryable
    return caught.value.reason
