"""What a worker lets a command reach: no more than the agent's version names, and the operator lists at that moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from codeagent import clock
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.eventlog.effects import Claim
from codeagent.messages.commands import ExecuteOperation
from codeagent.messages.envelope import Envelope, Message
from codeagent.messages.events import ExecEnded
from codeagent.messages.executions import EgressConnection, ExecStarted
from codeagent.messages.values import ArchiveSource, CallTool, CollectPatch, Operation, PrepareFiles
from codeagent.sandboxes.protocol import Connection, ExecSpec, SandboxFailure, Verdict
from codeagent.sandboxes.scripted import Scripted, ScriptedDriver
from codeagent.workers.bounds import Bounds
from codeagent.workers.deltas import unsent
from codeagent.workers.effect import Work
from codeagent.workers.sandbox import SandboxPerformer
from tests.acceptance.checks import archive_of
from tests.unit.agent.scenario import DIGEST, call

ASKED = ("*.example.org:443", "pypi.org:443")
SHELL = CallTool(call=call("shell", command="make"), timeout_seconds=10)
SEEN = (
    Connection("pypi.org", 443, Verdict.ALLOWED, 100, 2_000),
    Connection("other.org", 443, Verdict.HOST_REFUSED, 0, 0),
)


@dataclass
class Worker:
    """One whose operator lists `hosts`, on a driver that lets commands reach them, or none at all."""

    folder: Path
    hosts: tuple[str, ...] = ASKED
    reaches_out: bool = True
    specs: list[ExecSpec] = field(default_factory=list)

    async def do(self, operation: Operation, egress: tuple[str, ...] | None) -> tuple[ExecStarted, ExecEnded]:
        def script(spec: ExecSpec, _files: object) -> Scripted:
            self.specs.append(spec)
            return Scripted(connections=SEEN if spec.egress else ())

        store = LocalArtifactStore(self.folder)
        await store.start()
        base = await store.put("ten_a", archive_of({"a": "a"}))
        driver = ScriptedDriver(script, reaches_out=self.reaches_out)
        performer = SandboxPerformer(
            driver, store, unsent, answers_topic="t", limits=Bounds(egress=self.hosts), most_workspaces=1
        )
        effect_id = clock.new_uuid()
        command = ExecuteOperation(
            effect_id=effect_id, run_id="run_1", base=base, checkpoint="", operation=operation, egress=egress
        )
        envelope = Envelope(effect_id, command.NAME, 1, "/test", clock.now(), "ten_a", "run_1", effect_id)
        work = Work(Message(envelope, command), Claim(effect_id, clock.new_uuid(), 1, False))
        ended = (await performer.perform(work)).fact
        assert work.began is not None
        assert isinstance(work.began.fact, ExecStarted)
        assert isinstance(ended, ExecEnded)
        return work.began.fact, ended


async def test_a_command_reaches_what_its_version_names_and_both_facts_tell(tmp_path: Path) -> None:
    worker = Worker(tmp_path, ("*.example.org:443", "pypi.org:443", "never.asked:443"))
    began, ended = await worker.do(SHELL, ASKED)
    assert [spec.egress for spec in worker.specs] == [ASKED]
    assert began.egress == ASKED
    assert ended.egress == (
        EgressConnection(host="pypi.org", port=443, verdict="allowed", sent_bytes=100, received_bytes=2_000),
        EgressConnection(host="other.org", port=443, verdict="host_refused", sent_bytes=0, received_bytes=0),
    )
    assert ended.limits_hit == ("egress_denied",)


async def test_what_the_operator_has_taken_out_since_is_out_of_reach(tmp_path: Path) -> None:
    worker = Worker(tmp_path, ("one.example.org:443",))
    began, _ = await worker.do(SHELL, ASKED)
    assert began.egress == worker.specs[0].egress == ("one.example.org:443",)


@pytest.mark.parametrize("asked", [None, ()])
async def test_a_version_that_names_no_host_reaches_none(tmp_path: Path, asked: tuple[str, ...] | None) -> None:
    worker = Worker(tmp_path)
    began, ended = await worker.do(SHELL, asked)
    assert (began.egress, ended.egress, worker.specs[0].egress) == (None, None, ())


async def test_tools_that_only_look_reach_nothing(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    began, _ = await worker.do(CallTool(call=call("search", pattern="a"), timeout_seconds=10), ASKED)
    assert (began.egress, worker.specs[0].egress) == (None, ())


@pytest.mark.parametrize("operation", [PrepareFiles(source=ArchiveSource(digest=DIGEST)), SHELL])
@pytest.mark.parametrize(
    ("hosts", "reaches_out", "reason"), [(ASKED, False, "egress_unsupported"), ((), True, "egress_refused")]
)
async def test_where_nothing_can_be_reached_nothing_is_begun(
    tmp_path: Path, operation: Operation, hosts: tuple[str, ...], reaches_out: bool, reason: str
) -> None:
    worker = Worker(tmp_path, hosts, reaches_out)
    with pytest.raises(SandboxFailure) as caught:
        await worker.do(operation, ASKED)
    assert (caught.value.reason, caught.value.retryable) == (reason, False)
    assert worker.specs == []


async def test_the_patch_is_collected_all_the_same(tmp_path: Path) -> None:
    _, ended = await Worker(tmp_path, (), reaches_out=False).do(CollectPatch(), ASKED)
    assert ended.reason == "ok"
