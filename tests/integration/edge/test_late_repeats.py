"""A repeat that comes after its submission was forgotten: the run's log still knows what was asked for."""

from __future__ import annotations

from datetime import timedelta

import pytest

from codeagent import clock
from codeagent.broker.topics import RUN_EVENTS
from codeagent.eventlog.accept import SubmissionLedger
from codeagent.eventlog.log import EventLog
from codeagent.messages.commands import CancelRun, SubmitRun
from codeagent.messages.envelope import Command, Envelope, Message
from codeagent.messages.ids import derived_uuid
from codeagent.workers.step import StepLoop
from tests.integration.edge.conftest import Api
from tests.integration.edge.test_api import body, code
from tests.integration.workers.system import Mailbox


async def handle(api: Api, run_id: str, command: Command, name: str) -> None:
    """An agent worker takes the command, as it would from the topic or from the outbox."""
    envelope = Envelope(
        id=derived_uuid(run_id, name),
        name=command.NAME,
        version=command.VERSION,
        source="/test",
        time=clock.now(),
        tenant_id="ten_mine",
        key=run_id,
        correlation_id=derived_uuid(run_id, "submit"),
    )
    worker = StepLoop(api.database, EventLog(api.database), Mailbox(), events_topic=RUN_EVENTS)
    await worker.handle(Message(envelope, command))


async def forgotten(api: Api, wanted: dict[str, object], *, canceled_first: bool) -> str:
    """Submits a run, lets a worker take it, and forgets the submission as the sweep does a day later."""
    run_id = str((await api.submit(wanted)).json()["id"])
    submissions = SubmissionLedger(api.database)
    stored = await submissions.find("ten_mine", run_id)
    assert stored is not None
    if canceled_first:
        await handle(api, run_id, CancelRun(run_id=run_id), "cancel")
    await handle(api, run_id, SubmitRun.model_validate(stored.request), "submit")
    assert await submissions.forget(timedelta(0), 10) == 1
    return run_id


@pytest.mark.parametrize("canceled_first", [False, True], ids=["submitted first", "canceled first"])
async def test_the_same_body_names_the_same_run(api: Api, canceled_first: bool) -> None:
    wanted = await body(api)
    run_id = await forgotten(api, wanted, canceled_first=canceled_first)
    api.handed_over.clear()
    again = await api.submit(wanted)
    assert (again.status_code, again.json()["id"]) == (202, run_id)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["task"] == "Do it."
    assert api.handed_over == []


async def test_another_body_is_refused(api: Api) -> None:
    await forgotten(api, await body(api), canceled_first=False)
    other = await api.submit(await body(api, task="Something else."))
    assert (other.status_code, code(other)) == (422, "idempotency_key_reused")
