"""A canary is rolled back on what its runs came to, by the system itself, once: a bad version is, an equal one is not.

Runs are drawn as the edge draws them and their streams are written straight into the log; whoever folds and judges them
is what the relay runs.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest

import codeagent.projections.canaries as read_runs
import codeagent.relay.canaries as watching
from codeagent.agent_registry.canaries import running_canaries
from codeagent.agent_registry.canary import Unit
from codeagent.agent_registry.resolver import AgentResolver
from codeagent.errors import Unavailable
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import leaf_of
from codeagent.messages import events
from codeagent.messages.canaries import CanaryPlan
from codeagent.messages.canary_events import AgentCanaryRolledBack
from codeagent.messages.envelope import Event
from codeagent.messages.ids import agent_stream
from codeagent.projections.agent_runs import AgentRunsProjector
from codeagent.projections.canaries import canary_runs
from codeagent.projections.verdicts import judge
from codeagent.relay.canaries import CanaryWatch
from codeagent.telemetry import metrics
from tests.integration.edge.defined_agents import define, move, run, states
from tests.integration.edge.gateway import MINE, OTHERS, Edge
from tests.integration.projections.logs import DAY, Happened, call, caught_up, new_run_id, submitted, write_at_once

BATCH = 50
FAILED = events.RunFailed(status_reason="max_turns_exceeded")


@pytest.fixture
async def owner(newest_database_url: str) -> AsyncIterator[Database]:
    opened = Database(newest_database_url, connections=4)
    yield opened
    await opened.close()


async def with_canary(edge: Edge, name: str = "reader", **plan: Any) -> str:
    """An agent with version 1 active and version 2 its canary."""
    agent = await define(edge, name, {}, {})
    await move(edge, name, "versions/1/promote")
    path, current = f"/v1/agents/{name}/versions/2/canary", {"If-Match": "*"}
    answer = await edge.call(edge.keys.owner, "POST", path, json=plan, headers=current)
    assert answer.status_code == 200, answer.text
    return str(agent["id"])


def spread(runs: int) -> float:
    """How far the share of a canary that gets a tenth of the runs is from that, at the most: four deviations."""
    return 4 * float((0.1 * 0.9 / runs) ** 0.5)


class Traffic:
    """Runs of sessions, each of one, as they come in. `fails` is how often those of each version do. Their log is that
    of `tenant`."""

    def __init__(self, edge: Edge, owner: Database, fails: dict[int, float], tenant: str = MINE) -> None:
        self._resolver = AgentResolver(edge.database)
        self._owner = owner
        self._fails = fails
        self._random = Random(1)
        self._tenant = tenant
        self._sessions = 0
        self.given: Counter[int] = Counter()

    async def come(self, runs: int, bad: Event = FAILED) -> None:
        """So many runs begin and end, and are folded."""
        log: list[Happened] = []
        for _ in range(runs):
            self._sessions += 1
            unit = Unit("session", f"ses_{self._sessions}")
            agent = await self._resolver.resolve(MINE, "reader", unit, drafts=False)
            self.given[agent.number] += 1
            end = bad if self._random.random() < self._fails[agent.number] else events.RunCompleted()
            log += self._story(agent.number, agent.definition, end)
        await write_at_once(self._owner, log)
        await caught_up(self._owner, AgentRunsProjector(self._owner, EventLog(self._owner)))

    def _story(self, number: int, definition: Any, end: Event) -> list[Happened]:
        run_id, seconds = new_run_id(), self._random.lognormvariate(4, 0.5)
        order = submitted(run_id, "usr_1", "test/m", agent="reader", agent_version=number, definition=definition)
        at = self._sessions * 0.001  # in the order of their submission
        story = ((at, order), (at + seconds / 2, call(run_id, cost=f"{seconds / 1_000:.4f}")), (at + seconds, end))
        return [Happened(run_id, event, DAY, self._tenant, when) for when, event in story]


async def rollbacks(owner: Database, agent_id: str) -> list[AgentCanaryRolledBack]:
    found = await EventLog(owner).read_stream(agent_stream(agent_id))
    assert all(event.leaf_hash == leaf_of(event) for event in found)
    decoded = [event.decode() for event in found]
    return [event for event in decoded if isinstance(event, AgentCanaryRolledBack)]


async def test_a_bad_version_gets_a_tenth_of_the_runs_and_is_rolled_back_without_a_person(
    edge: Edge, owner: Database, newest_database_url: str
) -> None:
    agent_id = await with_canary(edge, weight=10)
    traffic = Traffic(edge, owner, {1: 0.1, 2: 0.8})
    others = [Database(newest_database_url, connections=1) for _ in range(2)]
    relays = [CanaryWatch(database) for database in (owner, *others)]
    rolled_back, before = 0, metrics.CANARY_ROLLBACKS.labels("success_rate")._value.get()
    while not rolled_back:
        await traffic.come(BATCH)
        assert traffic.given.total() <= 1_000, "it is not found out"
        # Every relay finds it at the same moment.
        rolled_back = sum(await asyncio.gather(*(relay.look() for relay in relays)))
    for database in others:
        await database.close()
    print(f"\nrolled back after {traffic.given.total()} runs, {traffic.given[2]} of them its own")
    assert traffic.given[2] / traffic.given.total() == pytest.approx(0.1, abs=spread(traffic.given.total()))
    assert rolled_back == 1
    assert metrics.CANARY_ROLLBACKS.labels("success_rate")._value.get() == before + 1
    [fact] = await rollbacks(owner, agent_id)
    verdict = fact.verdict
    assert (fact.number, fact.active, verdict.bound.metric.value) == (2, 1, "success_rate")
    assert verdict.canary.value is not None
    assert verdict.active.value is not None
    assert verdict.canary.value < 0.5
    assert verdict.active.value > 0.8
    assert (verdict.canary.runs, verdict.active.runs) == (traffic.given[2], traffic.given[1])
    assert verdict.chance <= 0.01
    shown = (await edge.call(edge.keys.owner, "GET", "/v1/agents/reader")).json()
    assert (shown["canary"], shown["active_version"], shown["rolled_back"]["number"]) == (None, 1, 2)
    assert shown["rolled_back"]["verdict"] == verdict.model_dump(mode="json")
    assert await states(edge, "reader") == ["active", "deprecated"]
    assert (await run(edge, "reader")).json()["assignment"]["rule"] == "active"


async def test_an_equal_version_is_not_rolled_back_in_500_runs(edge: Edge, owner: Database) -> None:
    agent_id = await with_canary(edge, weight=10, minimum_runs=5)
    traffic, relay = Traffic(edge, owner, {1: 0.2, 2: 0.2}), CanaryWatch(owner)
    for _ in range(500 // BATCH):
        await traffic.come(BATCH)
        assert await relay.look() == 0
    assert await rollbacks(owner, agent_id) == []
    seen = (await edge.call(edge.keys.owner, "GET", "/v1/agents/reader/canary")).json()
    print("\n", traffic.given, [(held["bound"]["metric"], held["chance"]) for held in seen["bounds"]])
    assert seen["bounds"][0]["canary"]["counted"] == traffic.given[2] > 0
    assert min(held["chance"] for held in seen["bounds"]) > seen["decides_at"]
    stats = (await edge.call(edge.keys.owner, "GET", f"/v1/agents/reader/stats?since={DAY}&until={DAY}")).json()
    assert [found["runs"]["submitted"] for found in stats["items"]] == [traffic.given[2], traffic.given[1]]


@pytest.mark.parametrize(
    "ending", [events.RunCanceled(), events.RunFailed(status_reason="provider_error")], ids=lambda end: end.NAME
)
async def test_outcomes_that_are_not_the_versions_own_roll_nothing_back(
    edge: Edge, owner: Database, ending: Event
) -> None:
    await with_canary(edge, weight=50, minimum_runs=5)
    traffic, relay = Traffic(edge, owner, {1: 0.0, 2: 1.0}), CanaryWatch(owner)
    await traffic.come(100, ending)
    assert await relay.look() == 0
    await traffic.come(100)
    assert await relay.look() == 1


async def test_runs_of_another_tenants_agent_of_the_same_name_decide_nothing(edge: Edge, owner: Database) -> None:
    await with_canary(edge, weight=50, minimum_runs=5)
    for tenant, rolled_back in ((OTHERS, 0), (MINE, 1)):
        await Traffic(edge, owner, {1: 0.0, 2: 1.0}, tenant).come(100)
        assert await CanaryWatch(owner).look() == rolled_back


async def test_once_all_runs_that_are_judged_have_ended_no_more_are_read(
    edge: Edge, owner: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (read_runs, watching):
        monkeypatch.setattr(module, "MOST_RUNS", BATCH)
    await with_canary(edge, weight=50)
    traffic, watch = Traffic(edge, owner, {1: 0.2, 2: 0.2}), CanaryWatch(owner)
    reads: list[int] = []

    async def counted(*arguments: Any) -> Any:
        runs = await canary_runs(*arguments)
        reads.append(len(runs))
        return runs

    monkeypatch.setattr(watching, "canary_runs", counted)
    for more in (BATCH - 1, BATCH, 1):
        await traffic.come(more)
        assert await watch.look() == 0
    assert reads == [BATCH - 1, BATCH]


async def test_nothing_is_read_while_no_more_runs_have_ended(
    edge: Edge, owner: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await with_canary(edge, weight=50)
    watch = CanaryWatch(owner)
    await Traffic(edge, owner, {1: 0.2, 2: 0.2}).come(20)
    assert await watch.look() == 0

    async def unasked(*_: Any) -> Any:
        raise AssertionError("nothing has come since")

    monkeypatch.setattr(watching, "canary_runs", unasked)
    monkeypatch.setattr(watching.log, "exception", pytest.fail)
    assert await watch.look() == 0


@pytest.mark.parametrize("error", [RuntimeError("a bug"), Unavailable("it takes too long")], ids=["bug", "database"])
async def test_a_canary_that_cannot_be_judged_holds_up_no_other(
    edge: Edge, owner: Database, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    broken, bad = await with_canary(edge, "broken", weight=33), await with_canary(edge, weight=50, minimum_runs=5)
    await Traffic(edge, owner, {1: 0.0, 2: 1.0}).come(100)
    order: list[str] = []

    async def broken_first(database: Database) -> Any:
        running = sorted(await running_canaries(database), key=lambda each: each[1].name)
        order.extend(agent.id for _, agent in running)
        return running

    def judging(plan: CanaryPlan, runs: Any) -> Any:
        if plan.weight == 33:
            raise error
        return judge(plan, runs)

    monkeypatch.setattr(watching, "running_canaries", broken_first)
    monkeypatch.setattr(watching, "judge", judging)
    assert await CanaryWatch(owner).look() == 1
    assert order == [broken, bad]
    assert len(await rollbacks(owner, bad)) == 1


async def test_a_run_that_names_a_version_says_nothing_about_its_canary(edge: Edge, owner: Database) -> None:
    await with_canary(edge, weight=50, minimum_runs=5)
    definition = await AgentResolver(edge.database).resolve(MINE, "reader@2", Unit("session", "s"), drafts=False)
    runs = [(new_run_id(), end) for end in (FAILED,) * 60]
    log = [
        Happened(run_id, event, DAY, MINE)
        for run_id, end in runs
        for event in (
            submitted(run_id, "u", "m", agent="reader", agent_version=2, definition=definition.definition),
            end,
        )
    ]
    await write_at_once(owner, log)
    await caught_up(owner, AgentRunsProjector(owner, EventLog(owner)))
    assert await CanaryWatch(owner).look() == 0
    seen = (await edge.call(edge.keys.owner, "GET", "/v1/agents/reader/canary")).json()
    assert seen["bounds"][0]["canary"]["runs"] == 0


async def test_a_canary_that_somebody_ends_meanwhile_is_not_rolled_back(edge: Edge, owner: Database) -> None:
    agent_id = await with_canary(edge, weight=50, minimum_runs=5)
    await Traffic(edge, owner, {1: 0.0, 2: 1.0}).come(100)
    stopped, found = await asyncio.gather(move(edge, "reader", "canary/stop"), CanaryWatch(owner).look())
    facts = await rollbacks(owner, agent_id)
    assert (stopped.status_code, found, len(facts)) in {(200, 0, 0), (409, 1, 1), (412, 1, 1)}
    assert await CanaryWatch(owner).look() == 0
    assert await states(edge, "reader") == ["active", "deprecated"]
