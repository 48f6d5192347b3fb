"""What somebody has done in runs of others is theirs there, too; and runs at work of one who may not go on."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from codeagent import clock
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import metadata_for, prepare
from codeagent.messages.calls import CallEnded
from codeagent.messages.conversation import Usage
from codeagent.messages.events import InputReceived, RunCompleted, RunSubmitted
from codeagent.messages.ids import call_stream, run_stream
from codeagent.messages.subagents import Parent
from codeagent.messages.values import ApprovalDecision, Outcome, Replays
from codeagent.privacy.stopping import RestrictedRuns
from codeagent.projections.runs import RunsProjector
from tests.integration.eventlog.steps import cause, commit_step, new_run, prepared, step
from tests.integration.identity.conftest import TENANT, World
from tests.integration.identity.test_privacy import EXAMPLES, begun, erased, user_id_of


async def recorded_call(world: World, run_id: str, owner: str) -> str:
    """A model call of the run has ended; the artifact that has what was asked."""
    effect_id, digest = clock.new_uuid(), f"sha256:{os.urandom(32).hex()}"
    fact = CallEnded(
        effect_id=effect_id,
        run_id=run_id,
        attempt=1,
        outcome=Outcome.DONE,
        model="m",
        request_digest=digest,
        usage=Usage(),
        duration_seconds=0.1,
        recorded=True,
    )
    made = step(run_id, 0, tenant=TENANT)
    stored = prepare(
        fact,
        stream_id=call_stream(effect_id),
        version=1,
        event_id=clock.new_uuid(),
        tenant_id=TENANT,
        occurred_at=clock.now(),
        metadata=metadata_for(made.cause, run_id),
        key=await world.database.subjects.of(TENANT, owner),
    )
    await commit_step(world.database, replace(made, stream_id=call_stream(effect_id), events=[stored]))
    return digest


async def test_an_erasure_removes_recordings_of_others_that_tell_what_the_subject_had_answered(world: World) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    runs = [await begun_run(world, world.user_id) for _ in range(3)]
    asked, allowed, untold = runs
    replaying = await begun_run(world, world.user_id, replays=Replays(run_id=asked, until_version=2))
    stays = [await recorded_call(world, run_id, world.user_id) for run_id in runs]
    for run_id, comment in ((asked, "Not before noon."), (allowed, "")):
        said = InputReceived(approval_id="apr_1", decision=ApprovalDecision.REJECT, comment=comment, principal=theirs)
        events = prepared(run_id, 1, [said], cause(run_id, TENANT), await world.database.subjects.of(TENANT, theirs))
        await commit_step(world.database, replace(step(run_id, 1, tenant=TENANT), events=events))
    goes = [await recorded_call(world, run_id, world.user_id) for run_id in (asked, replaying)]
    stays += [await recorded_call(world, run_id, world.user_id) for run_id in (allowed, untold)]
    await RunsProjector(world.database, EventLog(world.database)).catch_up()
    await begun(owner, "erasure", theirs)
    removed: list[str] = []
    await erased(world, removed)
    assert sorted(set(removed)) == sorted(goes)
    assert set(removed) & set(stays) == set()
    types = [fact.type for fact in await world.facts(run_stream(asked))]
    assert types == ["run.submitted", "run.input_received"]


async def begun_run(world: World, user_id: str, actor: tuple[str, str] | None = None, **more: Any) -> str:
    """A run of the user's that is at work; `actor` has ordered it, where that is not themselves."""
    run_id = new_run()
    kind, actor_id = actor or ("app_user", user_id)
    envelope = replace(cause(run_id, TENANT), actor_type=kind, actor_id=actor_id)
    golden = RunSubmitted.model_validate_json((EXAMPLES / "run.submitted.v1.json").read_bytes())
    fact = golden.model_copy(update={"run_id": run_id, "principal": user_id, **more})
    events = prepared(run_id, 0, [fact], envelope, await world.database.subjects.of(TENANT, user_id))
    await commit_step(world.database, replace(step(run_id, 0, tenant=TENANT), cause=envelope, events=events))
    return run_id


async def test_runs_at_work_of_a_restricted_user_are_canceled_and_no_others(world: World) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    at_work, others = await begun_run(world, theirs), await begun_run(world, world.user_id)
    parent = Parent(run_id=at_work, effect_id=clock.new_uuid(), principal=theirs, deadline_at=clock.now())
    child = await begun_run(world, theirs, actor=("run", at_work), parent=parent)
    ended = await begun_run(world, theirs)
    await commit_step(world.database, step(ended, 1, [RunCompleted()], tenant=TENANT))
    runs = RestrictedRuns(world.database, topic="t")
    assert await runs.stop() == 0
    await begun(owner, "restriction", theirs)
    late = await begun_run(world, theirs)
    for _ in range(2):
        assert await runs.stop() == 3
    rows = await world.database.fetch("SELECT key, topic, headers FROM outbox WHERE value IS NOT NULL")
    assert sorted(row["key"] for row in rows) == sorted([at_work, child, late])
    assert {row["topic"] for row in rows} == {"t"}
    assert all("run.cancel" in row["headers"] for row in rows)
    assert others not in {row["key"] for row in rows}
    await world.sql("UPDATE users SET restricted_at = restricted_at - interval '2 days' WHERE id = $1", theirs)
    assert await runs.stop() == 0
