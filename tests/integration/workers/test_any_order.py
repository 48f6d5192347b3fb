"""Any order, any loss, any death: a run ends once, and nothing is recorded, written or left behind twice.

`CODEAGENT_TEST_EXAMPLES=20000 CODEAGENT_TEST_SEED=8` looks longer, and elsewhere.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import pytest
import structlog
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st

from codeagent import clock
from codeagent.eventlog.database import Database
from codeagent.messages.values import ApprovalPolicy
from tests.conftest import SEED
from tests.integration.workers.simulated import frozen_time
from tests.integration.workers.simulated.checks import check
from tests.integration.workers.simulated.schedule import (
    ANSWERED_WITHIN_SECONDS,
    TAKEN_OVER_WITHIN_SECONDS,
    Draws,
    Schedule,
)
from tests.integration.workers.simulated.world import World

EXAMPLES = int(os.environ.get("CODEAGENT_TEST_EXAMPLES", "100"))
SETTING = st.binary(min_size=4, max_size=4)
EVENTS = st.lists(st.binary(min_size=6, max_size=6), min_size=60, max_size=240)
"""Bytes, because they are drawn evenly: whatever Hypothesis favours elsewhere would favour some misfortunes here."""

SHORT_DEADLINE, LONG_DEADLINE = 60, 1800
TIMER_SENT_AGAIN_SECONDS = 30
ASKS = ApprovalPolicy(tools=("shell",), expires_seconds=120)


@dataclass(frozen=True)
class Stage:
    """An event loop whose time stands still, a database on the same clock, and ids that repeat."""

    runner: asyncio.Runner
    database: Database
    ids: frozen_time.Ids


async def _at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


@pytest.fixture
def stage(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    asyncio.run(frozen_time.freeze_database(database_url))
    ids = frozen_time.Ids()
    monkeypatch.setattr(clock, "now", frozen_time.now)
    monkeypatch.setattr(clock, "new_uuid", ids)
    # Threads know nothing of the order that is played, and of time that stands still.
    monkeypatch.setattr(asyncio, "to_thread", _at_once)
    with asyncio.Runner(loop_factory=frozen_time.FrozenLoop) as runner:
        database = Database(database_url, connections=2)
        yield Stage(runner, database, ids)
        runner.run(database.close())


async def play(database: Database, setting: Draws, events: Sequence[bytes]) -> None:
    """One or two runs, some in haste, some with a model that never answers, some that ask people before they act, some
    that have something installed first, some that read three times at once, some that hand work on; then events; then
    peace."""
    hangs = setting.below(5) == 4
    lines, may_cancel, asks = setting.below(4), setting.below(3) == 2, setting.below(3) == 2
    installs, reads = setting.below(3) == 2, (0, 0, 3)[setting.below(3)]
    delegates = setting.below(3) == 2
    world = World(
        database, max(lines, 2) if asks else lines, reads, hangs=hangs, installs=installs, delegates=delegates
    )
    schedule = Schedule(world, may_cancel, asks)
    with structlog.testing.capture_logs() as logs:
        await world.start()
        try:
            for _ in range(1 + setting.below(2)):
                in_haste = hangs or setting.below(3) == 2
                deadline = SHORT_DEADLINE if in_haste else LONG_DEADLINE
                await world.submit(deadline, ASKS if asks else None)
            for entropy in events:
                await schedule.event(entropy)
            patience = SHORT_DEADLINE + TIMER_SENT_AGAIN_SECONDS if hangs else 0
            patience += ANSWERED_WITHIN_SECONDS * world.lines * (1 + delegates) if asks else 0
            # A stop that was lost is sent again, and whoever it reaches then has its time to stop.
            patience += TAKEN_OVER_WITHIN_SECONDS + TIMER_SENT_AGAIN_SECONDS if delegates else 0
            await schedule.come_to_rest(TAKEN_OVER_WITHIN_SECONDS + patience)
            await check(world)
        finally:
            note("\n".join(schedule.trace))
            await world.stop()
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


@pytest.mark.timeout(900)
def test_a_run_ends_once_and_everything_happens_once_in_whatever_order(
    stage: Stage, request: pytest.FixtureRequest, tell: Callable[[str], None]
) -> None:
    # Each PostgreSQL sees other examples; a seed names the same ones for ever.
    drawn = SEED + crc32(request.node.name.encode())

    @seed(drawn)
    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(SETTING, EVENTS)
    def plays(setting: bytes, events: list[bytes]) -> None:
        stage.ids.start_over()
        stage.runner.run(play(stage.database, Draws(setting), events))

    tell(f"seed {SEED}, {EXAMPLES} examples")
    plays()
