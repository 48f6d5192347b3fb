"""The content of runs is kept for as long as the policy says, and longer where a legal hold wants it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta

import asyncpg
import orjson
import pytest

from codeagent import clock
from codeagent.cli.operate import upgrade_database
from codeagent.edge import views
from codeagent.errors import Conflict
from codeagent.eventlog.database import SERVICE_ROLE, Database
from codeagent.eventlog.facts import Author, ControlPlane
from codeagent.eventlog.hashing import digest_of
from codeagent.eventlog.log import Cursor, EventLog
from codeagent.eventlog.verify import verify
from codeagent.messages.envelope import Event
from codeagent.messages.events import CancelRequested, RunCanceled, RunSubmitted, ToolCallFailed
from codeagent.messages.ids import hold_stream, retention_stream, run_stream
from codeagent.messages.privacy_events import ContentRetired
from codeagent.messages.values import ArchiveSource
from codeagent.privacy import run_retention
from codeagent.privacy.retention_policy import days_kept, set_days_kept
from codeagent.privacy.run_retention import RunRetention
from codeagent.projections.artifact_references import ArtifactReferences, named_among
from codeagent.telemetry import metrics
from codeagent.transparency.erased import missing_content
from tests.integration.eventlog.steps import cause, commit_step, new_run, prepared, step
from tests.integration.identity.conftest import TENANT, World, world
from tests.integration.identity.test_privacy import (
    EXAMPLES,
    REQUESTS,
    ask,
    begun,
    carry_on,
    erased,
    refused,
    relay_of,
    user_id_of,
)

__all__ = ["world"]  # a fixture
HOLDS = "/v1/privacy/holds"
KEEP = timedelta(days=30)
DAYS = 30.0
GOLDEN = RunSubmitted.model_validate_json((EXAMPLES / "run.submitted.v1.json").read_bytes())


@pytest.fixture
async def service(world: World) -> AsyncIterator[Database]:
    """As the relay works: under the services' role, on a database with the policy of 30 days."""
    await set_days_kept(world.url, DAYS)
    database = Database(world.url, connections=2, role=SERVICE_ROLE)
    yield database
    await database.close()


def archive(content: str) -> str:
    return f"sha256:{digest_of(content.encode()).hex()}"


async def run_of(world: World, user_id: str, days: float, *, source: str = "", ended: bool = True) -> str:
    """A run of so many days ago, with everything that was said of it in the same moment."""
    run_id = new_run()
    envelope = replace(cause(run_id, TENANT), actor_type="app_user", actor_id=user_id)
    told = {"run_id": run_id, "task": "a task", "principal": user_id, "source": ArchiveSource(digest=archive(source))}
    facts: list[Event] = [GOLDEN.model_copy(update=told), *[RunCanceled(message="no more")] * ended]
    now = clock.now
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "now", lambda: now() - timedelta(days=days))
        events = prepared(run_id, 0, facts, envelope, await world.database.subjects.of(TENANT, user_id))
    await commit_step(world.database, replace(step(run_id, 0, tenant=TENANT), cause=envelope, events=events))
    aged = "UPDATE events SET recorded_at = recorded_at - $2::interval WHERE stream_id = $1"
    await world.sql(aged, run_stream(run_id), timedelta(days=days))
    return run_id


async def retired(world: World, service: Database) -> int:
    """How many runs a round of the relay retires."""
    await ArtifactReferences(world.database, EventLog(world.database)).catch_up()
    retention, found = RunRetention(service, KEEP), 0
    while more := await retention.forget(1_000):
        found += more
    return found


async def emptied(world: World, runs: Sequence[str]) -> list[bool]:
    return [all(event.sealed is None for event in await world.facts(run_stream(run_id))) for run_id in runs]


async def missing(world: World) -> list[str]:
    """The places of which `audit verify` says that their content is gone."""
    return [found.detail async for found in missing_content(world.database, Cursor(), None)]


async def test_content_goes_when_its_run_has_ended_long_enough_ago(world: World, service: Database) -> None:
    runs = [
        await run_of(world, world.user_id, 31),
        await run_of(world, world.user_id, 29),
        await run_of(world, world.user_id, 31, ended=False),
    ]
    assert await retired(world, service) == 1
    assert await emptied(world, runs) == [True, False, False]
    assert [await retired(world, service), await missing(world)] == [0, []]
    [fact] = await world.facts(retention_stream(TENANT))
    assert fact.type == "retention.content_retired"
    assert orjson.loads(fact.data) == {"run_ids": runs[:1], "days": 30.0, "events": 2}
    assert verify(await world.facts(run_stream(runs[0]))) == []


async def test_content_that_is_gone_without_a_fact_of_that_run_is_missing(world: World, service: Database) -> None:
    retired_run, robbed = await run_of(world, world.user_id, 31), await run_of(world, world.user_id, 3)
    await retired(world, service)
    assert await missing(world) == []
    await world.sql("UPDATE events SET sealed = NULL WHERE stream_id = $1", run_stream(robbed))
    found = await missing(world)
    assert len(found) == 2
    assert all(robbed in detail and retired_run not in detail for detail in found)
    await world.sql("UPDATE events SET data = $1 WHERE event_type = 'retention.content_retired'", b"{}")
    assert len(await missing(world)) == 4


async def attacked(
    service: Database, runs: Sequence[str], tenant: str = TENANT, *, days: float = DAYS, events: int = 2
) -> None:
    """What somebody does who has the services' role: says that content goes, and has it taken out."""
    author = Author(tenant, "system", "retention", clock.new_uuid())
    async with ControlPlane(service).change(author) as change:
        fact = ContentRetired(run_ids=tuple(runs), days=days, events=events)
        stored = await change.append(retention_stream(tenant), fact)
        await change.rows("SELECT retire_content_v2($1, $2)", tenant, stored.id)


NOT_DUE = "content of a run that is not due"


async def test_services_cannot_retire_what_is_at_work_new_held_or_anothers(world: World, service: Database) -> None:
    theirs = await user_id_of(await world.colleague())
    await (await world.owner()).call("PUT", f"{HOLDS}/{theirs}")
    runs = [
        await run_of(world, world.user_id, 31, ended=False),
        await run_of(world, world.user_id, 29),
        await run_of(world, theirs, 31),
    ]
    old = await run_of(world, world.user_id, 31)
    for each in runs:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=NOT_DUE):
            await attacked(service, [old, each], events=4)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match=NOT_DUE):
        await attacked(service, [old], "ten_other")
    assert await emptied(world, [*runs, old]) == [False] * 4
    assert await world.facts(retention_stream(TENANT)) == []
    edge = world.edge.users.keys._database
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
        await edge.fetch("SELECT retire_content_v2($1, $2)", TENANT, clock.new_uuid(), tenant=TENANT)
    await attacked(service, [old])
    assert await emptied(world, [*runs, old]) == [False, False, False, True]


async def test_services_cannot_retire_sooner_than_the_policy_says_nor_without_one(
    world: World, service: Database
) -> None:
    run_id = await run_of(world, world.user_id, 31)
    for statement in (
        "UPDATE retention_policy SET days = 1",
        "DELETE FROM retention_policy",
        "INSERT INTO retention_policy (one, days) VALUES (true, 1)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
            await service.write(statement)
    assert await set_days_kept(world.url, 365.0)
    for days in (DAYS, 365.0):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=NOT_DUE):
            await attacked(service, [run_id], days=days)
    assert await set_days_kept(world.url, None)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match=NOT_DUE):
        await attacked(service, [run_id])
    assert await emptied(world, [run_id]) == [False]


async def test_services_cannot_date_a_runs_end_back(world: World, service: Database) -> None:
    """What they say of its time is not believed, and when it was recorded they do not say."""
    run_id = await run_of(world, world.user_id, 31)
    aged = "UPDATE events SET recorded_at = now() WHERE stream_id = $1 AND event_type = 'run.canceled'"
    await world.sql(aged, run_stream(run_id))
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match=NOT_DUE):
        await attacked(service, [run_id])
    for column in ("recorded_at", "transaction_id"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
            await service.write(f"INSERT INTO events ({column}) SELECT {column} FROM events LIMIT 1")
    assert await retired(world, service) == 0


async def test_no_content_goes_without_its_fact_in_the_same_transaction(world: World, service: Database) -> None:
    run_id = await run_of(world, world.user_id, 31)
    author = Author(TENANT, "system", "retention", clock.new_uuid())
    async with ControlPlane(service).change(author) as change:
        fact = ContentRetired(run_ids=(run_id,), days=DAYS, events=2)
        said = await change.append(retention_stream(TENANT), fact)
    for event_id in (clock.new_uuid(), said.id, (await world.facts(run_stream(run_id)))[0].id):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="no fact of this transaction"):
            await service.write("SELECT retire_content_v2($1, $2)", TENANT, event_id)
    with pytest.raises(Conflict):
        await attacked(service, [run_id], events=1)
    assert await emptied(world, [run_id]) == [False]


async def test_the_longer_of_the_databases_policy_and_the_relays_setting_counts(
    world: World, service: Database
) -> None:
    """Whichever of them was not changed yet: nothing goes that one of them keeps."""
    runs = [await run_of(world, world.user_id, 31), await run_of(world, world.user_id, 61)]
    await set_days_kept(world.url, None)
    assert await retired(world, service) == 0
    await set_days_kept(world.url, 60.0)
    assert await retired(world, service) == 1
    assert await emptied(world, runs) == [False, True]
    await set_days_kept(world.url, 1.0)
    assert await retired(world, service) == 1
    facts = [orjson.loads(fact.data) for fact in await world.facts(retention_stream(TENANT))]
    assert [(fact["run_ids"], fact["days"]) for fact in facts] == [([runs[1]], 60.0), ([runs[0]], 30.0)]


async def test_the_policy_is_set_changed_and_removed_by_the_owner(world: World) -> None:
    assert await days_kept(world.database) is None
    for days, changed in ((None, False), (30.0, True), (30.0, False), (7.5, True), (None, True)):
        assert await set_days_kept(world.url, days) is changed
        assert await days_kept(world.database) == days


async def test_an_operator_sets_it_with_an_upgrade_that_finds_nothing_to_do(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CODEAGENT_DATABASE_URL", world.url)
    monkeypatch.setenv("CODEAGENT_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    said = "the content of runs is kept"
    for value, expected, told in (
        ("30", 30.0, f"{said} for 30 days after their end\n"),
        ("30", 30.0, ""),
        (None, None, f"{said} as long as the log\n"),
    ):
        if value is None:
            monkeypatch.delenv("CODEAGENT_RUN_CONTENT_DAYS")
        else:
            monkeypatch.setenv("CODEAGENT_RUN_CONTENT_DAYS", value)
        assert await asyncio.to_thread(upgrade_database, None) == 0
        assert await days_kept(world.database) == expected
        assert capsys.readouterr().out == f"the database is up to date\n{told}"


async def test_a_retired_run_is_gone_for_those_who_had_seen_it_as_well(
    world: World, service: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "FINAL_SECONDS", 0.0)
    owner, run_id = await world.owner(), await run_of(world, world.user_id, 31)
    before = await owner.get(f"/v1/runs/{run_id}")
    assert (before.status_code, before.json()["task"]) == (200, "a task")
    await retired(world, service)
    for _ in range(2):
        assert refused(await owner.get(f"/v1/runs/{run_id}")) == (410, "erased")


async def test_artifacts_stay_that_a_run_names_whose_content_is_kept(world: World, service: Database) -> None:
    for days, source in ((31, "own"), (31, "shared"), (3, "shared")):
        await run_of(world, world.user_id, days, source=source)
    digests = [archive("own"), archive("shared")]
    await ArtifactReferences(world.database, EventLog(world.database)).catch_up()
    assert await named_among(service, TENANT, digests) == set(digests)
    assert await retired(world, service) == 2
    assert await named_among(service, TENANT, digests) == {archive("shared")}


async def test_what_the_list_of_artifacts_has_not_taken_yet_waits_for_it(world: World, service: Database) -> None:
    await ArtifactReferences(world.database, EventLog(world.database)).catch_up()
    await run_of(world, world.user_id, 31)
    assert await RunRetention(service, KEEP).forget(1_000) == 0
    assert await retired(world, service) == 1


async def test_what_is_held_stands_before_nothing_else(
    world: World, service: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much of it there is: few of the oldest events are looked at in a round."""
    monkeypatch.setattr(run_retention, "EVENTS_AT_ONCE", 2)
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    held = [await run_of(world, theirs, 40 + number) for number in range(3)]
    assert (await owner.call("PUT", f"{HOLDS}/{theirs}")).status_code == 200
    due = await run_of(world, world.user_id, 31)
    assert await retired(world, service) == 1
    assert await emptied(world, [*held, due]) == [False, False, False, True]


async def acted(world: World, run_id: str, user_id: str, *facts: Event, owner: str) -> None:
    """Facts of a command that somebody gave to a run of the `owner`'s."""
    [*_, newest] = await world.facts(run_stream(run_id))
    envelope = replace(cause(run_id, TENANT), actor_type="app_user", actor_id=user_id)
    key = await world.database.subjects.of(TENANT, owner)
    events = prepared(run_id, newest.version, facts, envelope, key)
    made = replace(step(run_id, newest.version, tenant=TENANT), cause=envelope, events=events)
    await commit_step(world.database, made)


async def test_a_hold_on_one_who_only_answers_and_cancels_keeps_those_runs_and_no_others(
    world: World, service: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do these stand before what is due."""
    monkeypatch.setattr(run_retention, "EVENTS_AT_ONCE", 2)
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    held = [await run_of(world, world.user_id, 40 + number) for number in range(3)]
    refused_call = ToolCallFailed(tool_call_id="c", name="shell", step=1, code="approval_rejected", error="Refused.")
    await acted(world, held[0], theirs, refused_call, owner=world.user_id)
    for run_id in held[1:]:
        await acted(world, run_id, theirs, CancelRequested(principal=theirs), owner=world.user_id)
    assert (await owner.call("PUT", f"{HOLDS}/{theirs}")).status_code == 200
    due = await run_of(world, world.user_id, 31)
    assert await retired(world, service) == 1
    assert await emptied(world, [*held, due]) == [False, False, False, True]
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match=NOT_DUE):
        await attacked(service, [held[1]])
    assert metrics.CONTENT_DUE._value.get() == 0.0


async def test_how_long_content_has_been_due_is_measured_while_it_waits(world: World, service: Database) -> None:
    for days in (32, 31, 3):
        await run_of(world, world.user_id, days)
    assert await RunRetention(service, KEEP).forget(1_000) == 0, "the list of artifacts has taken nothing"
    assert metrics.CONTENT_DUE._value.get() == pytest.approx(2 * 86_400, abs=60)
    assert await retired(world, service) == 2
    assert metrics.CONTENT_DUE._value.get() == 0.0


async def test_content_of_a_restricted_user_is_kept_until_the_restriction_is_lifted(
    world: World, service: Database
) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    kept, due = await run_of(world, theirs, 40), await run_of(world, world.user_id, 31)
    request = await begun(owner, "restriction", theirs)
    assert await retired(world, service) == 1
    assert await emptied(world, [kept, due]) == [False, True]
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match=NOT_DUE):
        await attacked(service, [kept])
    await owner.call("POST", f"{REQUESTS}/{request['id']}/lift", headers={"If-Match": f'"{request["version"]}"'})
    assert await retired(world, service) == 1
    assert await emptied(world, [kept]) == [True]


async def test_a_restriction_waits_for_what_is_being_removed(world: World, service: Database) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    run_id = await run_of(world, theirs, 31)
    async with ControlPlane(service).change(Author(TENANT, "system", "retention", clock.new_uuid())) as change:
        assert await change.rows("SELECT * FROM runs_due_v1($1, $2, $3)", TENANT, [run_id], DAYS)
        restricting = asyncio.create_task(begun(owner, "restriction", theirs))
        done, _ = await asyncio.wait({restricting}, timeout=0.5)
        assert not done
    assert (await restricting)["status"] == "in_progress"


async def test_a_hold_keeps_content_until_it_is_lifted(world: World, service: Database) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    path = f"{HOLDS}/{theirs}"
    placed = await owner.call("PUT", path)
    assert (placed.status_code, placed.json()["subject"], placed.json()["created_by"]) == (200, theirs, world.user_id)
    assert (await owner.call("PUT", path)).json() == placed.json()
    assert (await owner.get(HOLDS)).json() == {"items": [placed.json()], "next_cursor": None}
    held, free = await run_of(world, theirs, 31), await run_of(world, world.user_id, 31)
    assert await retired(world, service) == 1
    assert await emptied(world, [held, free]) == [False, True]
    assert (await owner.call("DELETE", path)).status_code == 204
    assert refused(await owner.call("DELETE", path)) == (404, "not_found")
    assert await retired(world, service) == 1
    assert [fact.type for fact in await world.facts(hold_stream(theirs))] == [
        "privacy.hold.placed",
        "privacy.hold.lifted",
    ]


async def test_an_erasure_of_one_who_is_held_does_not_begin(world: World) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    request = (await ask(owner, "erasure", theirs)).json()
    await owner.call("PUT", f"{HOLDS}/{theirs}")
    assert refused(await carry_on(owner, request, status="in_progress")) == (409, "legal_hold")
    assert (await owner.get(f"/v1/members/{theirs}")).status_code == 200
    await owner.call("DELETE", f"{HOLDS}/{theirs}")
    assert (await carry_on(owner, request, status="in_progress")).status_code == 200


async def test_a_hold_stops_an_erasure_that_has_begun(world: World) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    run_id = await run_of(world, theirs, 3)
    await begun(owner, "erasure", theirs)
    await owner.call("PUT", f"{HOLDS}/{theirs}")
    await ArtifactReferences(world.database, EventLog(world.database)).catch_up()
    erasures = relay_of(world)
    assert [await erasures.look() for _ in range(5)] == [1] * 5
    [erasure] = await world.database.fetch("SELECT closed_at IS NOT NULL, shredded_at FROM erasures")
    assert tuple(erasure) == (True, None)
    await owner.call("DELETE", f"{HOLDS}/{theirs}")
    await erased(world)
    assert await emptied(world, [run_id]) == [True]


async def test_holds_are_of_users_of_the_tenant_and_take_the_scope(world: World) -> None:
    owner, colleague = await world.owner(), await world.colleague()
    assert refused(await owner.call("PUT", f"{HOLDS}/usr_nobody")) == (404, "not_found")
    assert refused(await colleague.call("PUT", f"{HOLDS}/{world.user_id}")) == (403, "insufficient_scope")
    assert refused(await owner.get(f"{HOLDS}?cursor=x")) == (400, "malformed_cursor")
