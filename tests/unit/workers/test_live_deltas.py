"""Live text is sent while it is written, except to tenants for whom that is switched off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest

from codeagent import clock
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.eventlog.effects import Claim
from codeagent.eventlog.log import EventLog
from codeagent.messages.commands import ExecuteOperation, GenerateReply
from codeagent.messages.conversation import ToolCall
from codeagent.messages.envelope import Command, Envelope, Message
from codeagent.messages.values import BASE_CHECKPOINT, CallTool, Outcome
from codeagent.providers.breaker import Breaker
from codeagent.providers.retry import ResilientProvider
from codeagent.providers.scripted import ScriptedProvider
from codeagent.sandboxes.scripted import Scripted, ScriptedDriver
from codeagent.workers.bounds import Bounds
from codeagent.workers.effect import Performer, Work
from codeagent.workers.ended import Ended
from codeagent.workers.provider import ProviderPerformer
from codeagent.workers.sandbox import SandboxPerformer
from tests.acceptance.checks import archive_of

QUIET = "ten_quiet"


class Sent:
    """What went out live."""

    def __init__(self) -> None:
        self.deltas: list[dict[str, object]] = []

    async def __call__(self, key: str, value: bytes) -> None:
        self.deltas.append(json.loads(value))


def is_live(tenant_id: str) -> bool:
    return tenant_id != QUIET


async def perform(performer: Performer, command: Command, tenant_id: str) -> Ended:
    effect_id = clock.new_uuid()
    envelope = Envelope(effect_id, command.NAME, 1, "/test", clock.now(), tenant_id, "run_1", effect_id)
    return await performer.perform(Work(Message(envelope, command), Claim(effect_id, clock.new_uuid(), 1, False)))


@pytest.mark.parametrize(("tenant_id", "live"), [("ten_a", True), (QUIET, False)])
async def test_text_of_a_model(tmp_path: Path, tenant_id: str, live: bool) -> None:
    sent, store = Sent(), LocalArtifactStore(tmp_path)
    await store.start()
    model = ResilientProvider(ScriptedProvider(["a few words of text"]), Breaker("scripted"))
    log = cast(EventLog, None)  # the command is at version 0: there is nothing to read
    performer = ProviderPerformer(log, store, lambda _: (model, "m"), sent, answers_topic="t", is_live=is_live)
    command = GenerateReply(
        effect_id=clock.new_uuid(), run_id="run_1", at_version=0, model="scripted/m", max_output_tokens=100
    )
    ended = await perform(performer, command, tenant_id)
    assert ended.answer.outcome is Outcome.DONE
    assert "".join(str(delta["text"]) for delta in sent.deltas) == ("a few words of text" if live else "")


@pytest.mark.parametrize(("tenant_id", "live"), [("ten_a", True), (QUIET, False)])
async def test_output_of_a_command(tmp_path: Path, tenant_id: str, live: bool) -> None:
    sent, store = Sent(), LocalArtifactStore(tmp_path)
    await store.start()
    driver = ScriptedDriver(lambda *_: Scripted(stdout=b"printed\n"))
    performer = SandboxPerformer(
        driver, store, sent, answers_topic="t", limits=Bounds(), most_workspaces=1, is_live=is_live
    )
    command = ExecuteOperation(
        effect_id=clock.new_uuid(),
        run_id="run_1",
        base=await store.put(tenant_id, archive_of({"a": "a"})),
        checkpoint=BASE_CHECKPOINT,
        operation=CallTool(call=ToolCall(id="c", name="shell", arguments='{"command": "true"}'), timeout_seconds=10),
    )
    ended = await perform(performer, command, tenant_id)
    assert ended.answer.outcome is Outcome.DONE
    assert [delta["text"] for delta in sent.deltas] == (["printed\n"] if live else [])
    await performer.close()
