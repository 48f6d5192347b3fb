"""From where runs were ordered and canceled: beside the log, in the audit, and gone with whoever it was."""

from __future__ import annotations

from datetime import timedelta

import pytest

from codeagent import clock
from codeagent.broker.topics import RUN_EVENTS
from codeagent.eventlog.facts import forget_origins
from codeagent.eventlog.log import EventLog
from codeagent.messages.envelope import Message
from codeagent.privacy.tables import Erasure, remove_ledger_rows
from codeagent.projections.audit import AuditProjector
from codeagent.projections.audit_search import AuditFilter, AuditSearch
from codeagent.workers.step import StepLoop
from tests.integration.edge.conftest import Api
from tests.integration.edge.test_sessions import SOURCE
from tests.integration.opened import everything_said
from tests.integration.workers.system import Mailbox


@pytest.fixture(params=[True], ids=["durable"])
def durable(request: pytest.FixtureRequest) -> bool:
    """Commands come out where the test can hand them on."""
    return bool(request.param)


async def canceled(api: Api) -> str:
    """A run that was ordered and canceled over HTTP, before it has begun; its id."""
    run_id = str((await api.submit({"task": "t", "source": SOURCE})).json()["id"])
    assert (await api.http.post(f"/v1/runs/{run_id}/cancel")).status_code == 202
    agent = StepLoop(api.database, EventLog(api.database), Mailbox(), events_topic=RUN_EVENTS)
    for row in reversed(api.handed_over):
        await agent.handle(Message(row.envelope, row.data))
    await api.context.origins.close()
    return run_id


async def addresses(api: Api, run_id: str) -> dict[str, str | None]:
    """Of each line of the run's."""
    projector = AuditProjector(api.database, EventLog(api.database))
    while await projector.catch_up():
        pass
    tenant_id = api.handed_over[0].envelope.tenant_id
    found = await AuditSearch(api.walled).newest(tenant_id, AuditFilter(resource_id=run_id), None, 50)
    return {entry.action: entry.address for entry in found}


async def test_what_a_caller_orders_is_told_with_where_they_were(api: Api) -> None:
    run_id = await canceled(api)
    found = await addresses(api, run_id)
    assert found["run.submitted"] == found["run.cancel_requested"] == "127.0.0.1"
    assert "127.0.0.1" not in str([event.data for event in await EventLog(api.database).read_stream(f"run-{run_id}")])


async def test_nobody_else_is_shown_to_have_been_there(api: Api) -> None:
    """An address belongs to whoever sent the command, and not to another actor whose fact it has caused."""
    run_id = await canceled(api)
    await api.database.write("UPDATE fact_origins SET actor_id = 'usr_another' WHERE actor_id IS NOT NULL")
    assert set((await addresses(api, run_id)).values()) == {None}


async def test_a_cause_that_cannot_be_read_breaks_off_no_search(api: Api) -> None:
    run_id = await canceled(api)
    await addresses(api, run_id)
    damaged = 'metadata || \'{"causationid": "7"}\''
    await api.database.write(f"UPDATE events SET metadata = {damaged} WHERE stream_id = $1", f"run-{run_id}")
    assert set((await addresses(api, run_id)).values()) == {None}


async def test_addresses_go_with_an_erasure(api: Api) -> None:
    run_id = await canceled(api)
    person, tenant_id = api.handed_over[0].envelope.actor_id, api.handed_over[0].envelope.tenant_id
    key_id = next(event.key_id for event in await EventLog(api.database).read_stream(f"run-{run_id}") if event.key_id)
    erasure = Erasure("prq_1", tenant_id, person, key_id, clock.now(), None, None, None, [], {}, "")
    assert (await remove_ledger_rows(api.database, erasure))["fact_origins"] == 2
    assert "127.0.0.1" not in await everything_said(api.database)


async def test_addresses_go_after_their_time(api: Api) -> None:
    run_id = await canceled(api)
    assert await forget_origins(api.database, timedelta(0), 10) == 2
    assert set((await addresses(api, run_id)).values()) == {None}
