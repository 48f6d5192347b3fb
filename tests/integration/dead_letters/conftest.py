"""Operators and what keeps dead letters for them, on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from aiokafka import ConsumerRecord

from codeagent.dead_letters.letter import DeadLetter
from codeagent.dead_letters.letters import DeadLetters
from codeagent.dead_letters.tables import LetterFilter
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.messages.ids import dead_letter_stream
from codeagent.relay.dead_letters import DeadLetterKeeper
from tests.integration.dead_letters.records import BOX, DLQ, ORIGIN


@dataclass
class Desk:
    """`letters` are under the edge's role, `database` owns the tables."""

    database: Database
    letters: DeadLetters
    keeper: DeadLetterKeeper

    async def keep(self, *records: ConsumerRecord) -> list[DeadLetter]:
        for each in records:
            await self.keeper(each)
        return await self.all()

    async def all(self) -> list[DeadLetter]:
        """The newest first."""
        found, _ = await self.letters.page(LetterFilter(), None, 200)
        return list(found)

    async def facts(self, letter: DeadLetter) -> list[StoredEvent]:
        return list(await EventLog(self.database).read_stream(dead_letter_stream(letter.id)))

    async def column(self, name: str, letter: DeadLetter) -> object:
        [row] = await self.database.fetch(f"SELECT {name} AS it FROM dead_letters WHERE id = $1", letter.id)
        return row["it"]


@pytest.fixture
async def desk(newest_database_url: str) -> AsyncIterator[Desk]:
    database = Database(newest_database_url, connections=4)
    walled = Database(newest_database_url, connections=4, role=EDGE_ROLE)
    yield Desk(database, DeadLetters(walled, BOX), DeadLetterKeeper(database, BOX, {DLQ: ORIGIN}))
    await walled.close()
    await database.close()
