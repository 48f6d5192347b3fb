"""The image of a project, on its way from the edge through the agent to a sandbox worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codeagent import clock
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.broker.topics import RUN_EVENTS
from codeagent.edge.context import EdgePolicy
from codeagent.eventlog.effects import Claim
from codeagent.eventlog.log import EventLog
from codeagent.messages.commands import ExecuteOperation, GenerateReply, SubmitRun
from codeagent.messages.conversation import AssistantMessage, ToolCall
from codeagent.messages.envelope import Message, Payload
from codeagent.messages.executions import ExecStarted
from codeagent.messages.ids import derived_uuid
from codeagent.messages.results import ProviderResult, SandboxResult
from codeagent.messages.values import Outcome
from codeagent.sandboxes.limits import BUILT_IN_POLICY
from codeagent.sandboxes.protocol import SandboxFailure
from codeagent.sandboxes.scripted import Script, Scripted, ScriptedDriver
from codeagent.workers.bounds import Bounds
from codeagent.workers.effect import Work
from codeagent.workers.sandbox import SandboxPerformer
from codeagent.workers.step import StepLoop
from tests.integration.edge import contexts
from tests.integration.edge.conftest import Api
from tests.integration.workers.system import Mailbox

SHOP = {"name": "shop", "repository": "https://git.example.org/team/shop.git"}
Repositories = Mapping[str, Mapping[str, bytes]]
FILES: Repositories = {SHOP["repository"]: {"README": b"hello\n"}}


@pytest.fixture(params=[True], ids=["durable"])
def durable(request: pytest.FixtureRequest) -> bool:
    """Commands come out where the test can hand them on."""
    return bool(request.param)


@pytest.fixture
def edge_policy(durable: bool) -> EdgePolicy:
    return contexts.edge_policy(durable_accept=durable, images=frozenset({"default", "go", "rust"}))


class Chain:
    """What stands behind the edge: an agent worker, and sandbox workers, each with the images it is given."""

    def __init__(self, api: Api, store: LocalArtifactStore) -> None:
        self.api = api
        self.mailbox = Mailbox()
        self.agent = StepLoop(api.database, EventLog(api.database), self.mailbox, events_topic=RUN_EVENTS)
        self.store = store

    async def begin(self, **body: Any) -> str:
        """Submits a run and has the agent ask for its files."""
        answer = await self.api.submit({"task": "t", **body}, key=str(clock.new_uuid()))
        assert answer.status_code == 202, answer.text
        row = self.api.handed_over[-1]
        await self.agent.handle(Message(row.envelope, row.data))
        return str(answer.json()["id"])

    @property
    def asked(self) -> ExecuteOperation:
        command = self.mailbox.commands[-1].data
        assert isinstance(command, ExecuteOperation)
        return command

    async def perform(self, *images: str, there: Repositories = FILES) -> tuple[ExecStarted, SandboxResult]:
        """What a sandbox worker with these images makes of what the agent has asked for last."""
        driver = ScriptedDriver(repositories=there, images={name: telling(name) for name in images})
        limits = Bounds(BUILT_IN_POLICY)
        performer = SandboxPerformer(
            driver,  # type: ignore[arg-type]
            self.store,
            _not_sent,
            answers_topic="t",
            limits=limits,
            most_workspaces=1,
        )
        work = Work(self.mailbox.commands[-1], Claim(self.asked.effect_id, clock.new_uuid(), 1, False))
        try:
            ended = await performer.perform(work)
        except SandboxFailure as failure:
            ended = performer.ended(work, Outcome.FAILED, failure)
        assert work.began is not None
        began, answer = work.began.fact, ended.answer
        assert isinstance(began, ExecStarted)
        assert isinstance(answer, SandboxResult)
        return began, answer

    def tool_call(self, run_id: str) -> ProviderResult:
        """A model's answer to what the agent has asked for last."""
        command = self.mailbox.commands[-1].data
        assert isinstance(command, GenerateReply)
        call = ToolCall(id="c", name="shell", arguments='{"command": "make"}')
        message = AssistantMessage(tool_calls=(call,))
        done = Outcome.DONE
        return ProviderResult(effect_id=command.effect_id, run_id=run_id, attempt=1, outcome=done, message=message)

    async def answered(self, answer: Payload) -> None:
        envelope = replace(self.mailbox.commands[-1].envelope, id=derived_uuid(str(clock.new_uuid())), name=answer.NAME)
        await self.agent.handle(Message(envelope, answer))

    async def shown(self, run_id: str) -> dict[str, Any]:
        return dict((await self.api.http.get(f"/v1/runs/{run_id}")).json())


def telling(image: str) -> Script:
    """Every command says in which image it runs."""
    return lambda _spec, _files: Scripted(stdout=f"in {image}\n".encode())


async def _not_sent(_key: str, _value: bytes) -> None:
    """Nobody watches."""


@pytest.fixture
async def chain(api: Api, tmp_path: Path) -> Chain:
    store = LocalArtifactStore(tmp_path / "worker")
    await store.start()
    return Chain(api, store)


async def made(api: Api, collection: str, **fields: Any) -> str:
    answer = await api.http.post(f"/v1/{collection}", json=fields, headers={"Idempotency-Key": str(clock.new_uuid())})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def submitted(api: Api) -> SubmitRun:
    command = api.handed_over[-1].data
    assert isinstance(command, SubmitRun)
    return command


async def test_the_images_there_are_are_told_to_whoever_asks_for_another(api: Api) -> None:
    body = {**SHOP, "image": "windows"}
    answer = await api.http.post("/v1/projects", json=body, headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json()["code"]) == (422, "unsupported_image")
    assert answer.json()["detail"] == "There is no image 'windows': there are default, go, rust."


async def test_a_runs_commands_see_the_image_of_its_project(api: Api, chain: Chain) -> None:
    project = await made(api, "projects", **SHOP, image="go")
    run_id = await chain.begin(project_id=project)
    assert chain.asked.image == "go"
    began, answer = await chain.perform("rust", "go")
    assert (began.image, answer.outcome) == ("go", Outcome.DONE)
    await chain.answered(answer)
    await api.http.patch(f"/v1/projects/{project}", json={"image": "rust"}, headers={"If-Match": "*"})
    await chain.answered(chain.tool_call(run_id))
    began, answer = await chain.perform("rust", "go")
    assert (began.image, answer.output) == ("go", "exit code: 0\nin go")
    assert (await chain.shown(run_id))["image"] == "go"
    await chain.begin(project_id=project)
    assert chain.asked.image == "rust"


async def test_a_worker_without_the_image_ends_the_run_and_takes_no_other(api: Api, chain: Chain) -> None:
    run_id = await chain.begin(project_id=await made(api, "projects", **SHOP, image="go"))
    began, answer = await chain.perform("rust", there={})  # refused before the repository is looked for
    assert (began.image, answer.outcome, answer.error_reason) == ("go", Outcome.FAILED, "image_unsupported")
    assert (answer.retryable, answer.base) == (False, None)
    await chain.answered(answer)
    _, collected = await chain.perform("rust")
    await chain.answered(collected)
    shown = await chain.shown(run_id)
    assert (shown["status"], shown["status_reason"]) == ("failed", "image_unsupported")
    assert shown["message"] == "scripted has no image go here"


async def test_a_session_goes_on_in_the_image_that_it_began_with(api: Api, chain: Chain) -> None:
    project = await made(api, "projects", **SHOP, image="go")
    session = await made(api, "sessions", project_id=project)
    first = await chain.begin(session_id=session)
    await api.http.post(f"/v1/runs/{first}/cancel")
    cancel = api.handed_over[-1]
    await chain.agent.handle(Message(cancel.envelope, cancel.data))
    _, answer = await chain.perform("go")
    await chain.answered(answer)
    assert (await chain.shown(first))["status"] == "canceled"
    await api.http.patch(f"/v1/projects/{project}", json={"image": "rust"}, headers={"If-Match": "*"})
    await chain.begin(session_id=session)
    assert submitted(api).image == "go"


async def test_an_image_that_is_no_longer_offered_takes_no_new_runs(api: Api) -> None:
    project = await made(api, "projects", **SHOP, image="go")
    object.__setattr__(api.context, "policy", replace(api.context.policy, images=frozenset({"default"})))
    answer = await api.submit({"task": "t", "project_id": project})
    assert (answer.status_code, answer.json()["code"]) == (422, "unsupported_image")
    [error] = answer.json()["errors"]
    assert error["pointer"] == "/project_id"


async def test_what_has_the_usual_image_says_nothing_of_it(api: Api, chain: Chain) -> None:
    run_id = await chain.begin(project_id=await made(api, "projects", **SHOP))
    assert "image" not in submitted(api).model_dump(mode="json")
    assert "image" not in chain.asked.model_dump(mode="json")
    assert (await chain.shown(run_id))["image"] == "default"
