"""What a database says once it is opened with the keys that there are."""

from __future__ import annotations

from collections.abc import Sequence

from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import open_commands
from codeagent.eventlog.log import COLUMNS
from codeagent.eventlog.sealing import open_events, outbox_place
from codeagent.eventlog.stored import from_row
from codeagent.messages.commands import SubmitRun
from codeagent.messages.envelope import Message


async def commands_at_work(database: Database) -> Sequence[Message]:
    """The commands of all effects in the ledger, timers included."""
    opened = await open_commands(database.subjects, await database.fetch("SELECT * FROM effects ORDER BY id"))
    return [message for _, message in opened]


async def everything_said(database: Database) -> str:
    """The data and metadata of all events, one after the other."""
    rows = await database.fetch(f"SELECT {COLUMNS} FROM events ORDER BY global_position")
    events = await open_events(database.subjects, [from_row(row) for row in rows])
    return "".join(event.data.decode() + str(dict(event.metadata)) for event in events)


async def ordered(database: Database, run_id: str) -> SubmitRun:
    """The command in the outbox that a run was submitted with."""
    [row] = await database.fetch("SELECT id, value FROM outbox WHERE key = $1", run_id)
    place = outbox_place(row["id"])
    value = (await database.subjects.open_named({place: row["value"]}))[place]
    return SubmitRun.model_validate_json(value or b"{}")
