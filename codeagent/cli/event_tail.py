"""`codeagent events tail`: the log as it grows, on the database itself."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codeagent.cli.databases import command_database
from codeagent.cli.operate import guarded, load_settings, operator
from codeagent.errors import InvalidInput, Unreadable
from codeagent.eventlog.log import Cursor, EventLog
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.subscription import Subscription, of_all, of_category, of_stream
from codeagent.messages.envelope import instant
from codeagent.projections.audit_reads import AuditReads

START, NOW = "start", "now"


@dataclass(frozen=True, slots=True)
class Wanted:
    """As typed: of one stream, of a category, or of all; after a place, `start` or `now`."""

    stream: str | None
    category: str | None
    after: str

    def text(self) -> dict[str, str]:
        """As a fact keeps it."""
        said = {"stream": self.stream, "category": self.category, "from": self.after}
        return {name: value for name, value in said.items() if value is not None}


def show(data_dir: Path | None, wanted: Wanted, *, as_json: bool, with_data: bool) -> int:
    async def follow() -> int:
        async with command_database(load_settings(data_dir), name="codeagent-tail") as database:
            subscription = await subscribe(EventLog(database), wanted)
            if with_data:
                await AuditReads(database).record(operator(), "log", wanted.text())
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, subscription.close)
            async for event in subscription:
                told = described(event, str(subscription.cursor), with_data=with_data)
                sys.stdout.write(f"{json.dumps(told) if as_json else line(told)}\n")
                sys.stdout.flush()
        return 0

    return guarded(follow())


async def subscribe(log_reader: EventLog, wanted: Wanted) -> Subscription[Cursor] | Subscription[int]:
    """Raises `InvalidInput` or `Rejected` for a place that is none."""
    if wanted.stream is not None:
        return of_stream(log_reader, wanted.stream, await _version(log_reader, wanted.stream, wanted.after))
    if wanted.after == NOW:
        cursor = await log_reader.settled()
    else:
        cursor = Cursor() if wanted.after == START else Cursor.parse(wanted.after)
    return of_all(log_reader, cursor) if wanted.category is None else of_category(log_reader, wanted.category, cursor)


async def _version(log_reader: EventLog, stream_id: str, after: str) -> int:
    if after == NOW:
        return await log_reader.head(stream_id)
    if after == START:
        return 0
    if not (after.isdecimal() and len(after) < 19):
        raise InvalidInput("the place in a stream is one of its versions, a number")
    return int(after)


def described(event: StoredEvent, cursor: str, *, with_data: bool) -> dict[str, Any]:
    """What there is to say of an event. `unreadable` tells what is wrong with one that cannot be read."""
    told: dict[str, Any] = {
        "cursor": cursor,
        "occurred_at": instant(event.occurred_at),
        "stream_id": event.stream_id,
        "version": event.version,
        "type": event.type,
        "schema_version": event.schema_version,
        "event_id": str(event.id),
        "tenant_id": event.tenant_id,
        "metadata": dict(event.metadata),
    }
    try:
        event.decode()
    except Unreadable as error:
        return {**told, "unreadable": error.detail}
    return {**told, "data": event.document()} if with_data else told


def line(told: Mapping[str, Any]) -> str:
    """For people: the place, then what, where and when."""
    what = f"{told['type']}.v{told['schema_version']}"
    where = f"{told['stream_id']} version {told['version']}"
    text = f"{told['cursor']}  {told['occurred_at']}  {where}  {what}  event {told['event_id']}  {told['tenant_id']}"
    text += "".join(f" {name}={value}" for name, value in told["metadata"].items())
    if "unreadable" in told:
        text += f"  UNREADABLE: {told['unreadable']}"
    # Whoever wrote the row may have meant a terminal to obey it.
    text = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return f"{text}\n  {json.dumps(told['data'])}" if "data" in told else text
