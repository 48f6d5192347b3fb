"""A log whose checkpoints go to a topic, for tests of what the topic is good for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from typer.testing import CliRunner, Result

from codeagent.broker.connection import KafkaConnection
from codeagent.broker.topics import AUDIT_CHECKPOINTS
from codeagent.cli.main import app
from codeagent.eventlog.database import Database
from codeagent.eventlog.sweep import Sweeper
from codeagent.relay.outbox import OutboxPublisher
from codeagent.transparency.anchoring import Anchorer
from codeagent.transparency.sealer import Sealer
from tests.integration.transparency.sealed import append_runs, seal_all

TAKEN_BACK = (
    "DELETE FROM events WHERE global_position > 3",
    "DELETE FROM audit_leaves WHERE leaf_index >= 3",
    "DELETE FROM audit_checkpoints WHERE number > 1",
    "UPDATE audit_tiles SET hashes = substring(hashes FROM 1 FOR 96)",
    "DELETE FROM audit_anchors",
)
"""To where the log had three entries, as a backup of that time would have it."""


@dataclass
class Published:
    """A log whose checkpoint is in the topic, and the way there."""

    database: Database
    anchorer: Anchorer
    sealer: Sealer
    outbox: OutboxPublisher
    connection: KafkaConnection

    async def grow(self, count: int) -> None:
        await append_runs(self.database, count)
        await seal_all(self.database, self.sealer)

    async def relay(self) -> None:
        async with asyncio.timeout(30):
            while (await Sweeper(self.database).pending())[0]:
                await self.outbox.sweep()
                await asyncio.sleep(0.01)

    async def records(self, count: int) -> list[ConsumerRecord]:
        consumer = AIOKafkaConsumer(
            AUDIT_CHECKPOINTS, bootstrap_servers=self.connection.bootstrap_servers, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            async with asyncio.timeout(15):
                return [await consumer.getone() for _ in range(count)]
        finally:
            await consumer.stop()


async def verify(*words: str) -> Result:
    return await audit("verify", *words)


async def audit(*words: str) -> Result:
    """Beside the loop of the test: the command has one of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["audit", *words, "--data-dir", "/nowhere"])
