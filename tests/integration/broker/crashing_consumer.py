"""A consumer in a process of its own, for tests that kill it: prints what it handles, and stops at a value."""

from __future__ import annotations

import asyncio
import sys

from aiokafka import ConsumerRecord

from codeagent.broker.connection import KafkaConnection
from codeagent.broker.consumer import GroupConsumer


async def main(servers: str, topic: str, group: str, stuck_at: str) -> None:
    async def handle(record: ConsumerRecord) -> None:
        value = record.value.decode()
        sys.stdout.write(f"begin {value}\n")
        sys.stdout.flush()
        if value == stuck_at:
            await asyncio.sleep(3600)
        sys.stdout.write(f"end {value}\n")
        sys.stdout.flush()

    connection = KafkaConnection(servers, "crashing", fetch_wait_ms=20, session_timeout_ms=6_000)
    consumer = GroupConsumer(connection, [topic], group=group, handle=handle)
    await consumer.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
