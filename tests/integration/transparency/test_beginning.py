"""A relay that begins signs nothing before it has read what was kept: the log may have been cut back meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from codeagent.broker.admin import TopicAdmin, Wanted
from codeagent.broker.topics import AUDIT_CHECKPOINTS
from codeagent.cli.parts import Parts
from codeagent.cli.process import Process
from codeagent.cli.transparency import SIGNING_KEY, prove
from codeagent.embedded.broker import EmbeddedBroker
from codeagent.errors import Unavailable
from codeagent.telemetry import metrics
from codeagent.transparency.sealer import Sealer
from tests.integration.transparency.published import Published
from tests.integration.transparency.sealed import KEY, KEYS, append_runs, newest


@dataclass
class Secrets:
    values: dict[str, str] = field(default_factory=lambda: {SIGNING_KEY: KEY.secret()})

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def get(self, name: str) -> str:
        return self.values[name]

    def watch(self, *_: Any) -> None:
        """Nothing changes here."""


@asynccontextmanager
async def relay(published: Published, folder: Path | None = None, servers: str = "") -> AsyncIterator[None]:
    """What a relay is composed of to prove the log, at work."""
    kafka = replace(published.connection, bootstrap_servers=servers or published.connection.bootstrap_servers)
    process, settings = Process("relay"), SimpleNamespace(audit_anchor_dir=folder)
    parts = SimpleNamespace(
        process=process, settings=settings, secrets=Secrets(), database=published.database, kafka=kafka
    )
    prove(cast(Parts, parts))
    for action in process.start:
        await action()
    try:
        yield
    finally:
        for action in process.stop:
            await action()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.02)


def refused() -> bool:
    return bool(metrics.AUDIT_REFUSED.labels("sealer")._value.get())


async def test_a_log_that_was_cut_back_before_the_start_is_not_signed_over(
    published: Published, take_back: Callable[[], Awaitable[None]]
) -> None:
    await published.anchorer.anchor()
    await published.relay()
    await take_back()
    await append_runs(published.database, 2)
    metrics.AUDIT_REFUSED.labels("sealer").set(0)
    async with relay(published):
        await until(refused)
    assert (await newest(published.database)).size == 3


async def test_sealing_goes_on_once_every_place_was_read(published: Published, tmp_path: Path) -> None:
    await append_runs(published.database, 2)
    sealed = metrics.AUDIT_SEALED._value.get()
    async with relay(published, tmp_path):
        await until(lambda: metrics.AUDIT_SEALED._value.get() == sealed + 2)
    assert [metrics.AUDIT_UNREAD.labels(each)._value.get() for each in ("topic", "directory")] == [0, 0]


async def test_while_a_place_is_away_sealing_waits_and_says_so(published: Published, tmp_path: Path) -> None:
    await append_runs(published.database, 2)
    async with relay(published, tmp_path, servers="127.0.0.1:1"):
        await asyncio.sleep(3)
        assert [metrics.AUDIT_UNREAD.labels(each)._value.get() for each in ("topic", "directory")] == [1, 0]
        assert metrics.AUDIT_UNSEALED._value.get() > 1
        begun = time.monotonic()
    assert time.monotonic() - begun < 5, "and holds up no stop"
    assert (await newest(published.database)).size == 5


async def test_a_broker_that_comes_back_is_found(published: Published, own_broker: EmbeddedBroker) -> None:
    await append_runs(published.database, 2)
    own_broker.stop()
    sealed = metrics.AUDIT_SEALED._value.get()
    async with relay(published):
        await asyncio.sleep(1)
        own_broker.restart()
        await TopicAdmin(published.connection, replication=1, configurable=False).apply(
            [Wanted(AUDIT_CHECKPOINTS, 1, {})]
        )
        await until(lambda: metrics.AUDIT_SEALED._value.get() == sealed + 2)


async def test_nobody_who_awaits_a_place_signs_unheard(published: Published) -> None:
    await append_runs(published.database, 1)
    with pytest.raises(Unavailable, match="what is kept in topic was not read yet"):
        await Sealer(published.database, KEYS, awaits=["topic"]).seal()
