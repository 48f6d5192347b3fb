"""What `codeagent events` does, on the database and the broker themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from codeagent.broker.publisher import Publisher
from codeagent.broker.topics import load_topics
from codeagent.cli.databases import command_database
from codeagent.cli.kafka import kafka_connection
from codeagent.cli.operate import guarded, load_settings, operator, say
from codeagent.cli.secrets import with_secrets
from codeagent.errors import InvalidInput
from codeagent.eventlog.log import Cursor, EventLog
from codeagent.projections.audit_reads import AuditReads
from codeagent.relay.republish import Range, Republisher
from codeagent.settings import Settings


def send_again(data_dir: Path | None, topic: str, after: str, until: str) -> int:
    async def send() -> int:
        settings = await with_secrets(load_settings(data_dir), "kafka_password")
        if topic in set(_ours(settings)):
            detail = f"{topic} is a topic of this system: whoever reads it has had these events, or must not have them"
            raise InvalidInput(detail)
        begin = Cursor() if after == "start" else Cursor.parse(after)
        end = None if until == "now" else Cursor.parse(until)
        publisher = Publisher(kafka_connection(settings, "codeagent-republish"))
        async with command_database(settings) as database:
            try:
                log = EventLog(database)
                await publisher.start()
                wanted = Range(begin, await log.settled() if end is None else end)
                sys.stderr.write(f"up to {wanted.until}\n")
                asked = {"topic": topic, "from": str(wanted.after), "to": str(wanted.until)}
                await AuditReads(database).record(operator(), "republish", asked)
                sent = await Republisher(log, publisher).republish(wanted, topic, _tell)
            finally:
                await publisher.stop()
        say(f"{sent} events sent to {topic}")
        return 0

    return guarded(send())


def _tell(place: Cursor, sent: int) -> None:
    sys.stderr.write(f"{sent} events, up to {place}\n")


def _ours(settings: Settings) -> Iterator[str]:
    for definition in load_topics(settings.topics_dir):
        yield definition.name
        yield from definition.dead_letter_topics()
