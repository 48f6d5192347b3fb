"""What a person has written with an answer is told the model as long as it is theirs to be told."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from codeagent import clock
from codeagent.eventlog.database import Database
from codeagent.messages.commands import AnswerApproval
from codeagent.messages.conversation import AssistantMessage, ToolCall, ToolMessage
from codeagent.messages.envelope import Message
from codeagent.messages.events import InputRequired
from codeagent.messages.ids import run_stream
from codeagent.messages.values import ApprovalDecision, ApprovalPolicy
from codeagent.subjects.key import key_id_of
from tests.integration.workers.system import TENANT, Bench
from tests.integration.workers.test_replayed_runs import LS, Models, says

UNKNOWN = AssistantMessage(text="And now?", tool_calls=(ToolCall(id="d", name="nothing", arguments="{}"),))


@pytest.fixture
def approver() -> str:
    """Another one each time: they are erased."""
    return f"usr_{clock.new_uuid().hex}"


@pytest.fixture
async def refused(database: Database, approver: str) -> Bench:
    """A run at the question after a refusal, whose comment is a canary."""
    bench = Bench(database)
    agent = bench.agent()
    await agent.handle(bench.submit(approvals=ApprovalPolicy(tools=("shell",))))
    await agent.handle(bench.prepared())
    await says(bench, AssistantMessage(text="I look.", tool_calls=(LS,)))
    [*_, asked] = await agent._log.read_stream(run_stream(bench.run_id))
    request = asked.decode()
    assert isinstance(request, InputRequired)
    command = AnswerApproval(
        run_id=bench.run_id,
        approval_id=request.request.approval_id,
        decision=ApprovalDecision.REJECT,
        comment="canary",
    )
    message = bench.message(command)
    await agent.handle(Message(replace(message.envelope, actor_type="app_user", actor_id=approver), command))
    return bench


async def test_a_comment_is_told_and_not_any_more_once_its_author_is_erased(
    refused: Bench, approver: str, tmp_path: Path
) -> None:
    """Not from the memory of a worker that has told it before, either."""
    models = await Models.of(refused, tmp_path)

    async def told() -> str:
        await models.answer()
        return next(message.text for message in models.asked[-1].messages if isinstance(message, ToolMessage))

    first = await told()
    assert first.endswith('Their comment: "canary"')
    await says(refused, UNKNOWN)
    assert await told() == first
    await says(refused, UNKNOWN)
    await refused.database.subjects.shred(key_id_of(TENANT, approver), clock.now())
    await asyncio.sleep(0.06)
    assert await told() == first.removesuffix(' Their comment: "canary"')
    await models.worker.drain(1)
