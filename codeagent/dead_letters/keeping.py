"""From a record of a dead-letter topic to its row: the same record, read again, makes no second one."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import orjson

from codeagent import clock
from codeagent.broker.dead_letters import FailedRecord
from codeagent.dead_letters import tables
from codeagent.dead_letters.letter import KEPT_FOR, PREFIX, Content, claims, place_of, plain, shown_headers
from codeagent.encryption import SecretBox
from codeagent.eventlog.database import Database
from codeagent.messages.ids import derived_uuid, typed_id

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INTEGER = 2**31 - 1


def letter_id(failed: FailedRecord) -> str:
    """Its moment is part of it: a broker that has lost everything counts from 0 again."""
    place = (failed.dlq_partition, failed.dlq_offset, failed.failed_ms)
    return typed_id(PREFIX, derived_uuid("dead_letter", failed.origin.topic, failed.origin.group, *map(str, place)))


async def keep(database: Database, box: SecretBox | None, failed: FailedRecord) -> str | None:
    """The id of the row that was made; None where there was one, or the record is older than rows are kept. Without a
    `box` the record's bytes are not kept: they are in its topic alone. Raises `Unavailable`."""
    failed_at = _moment(failed.failed_ms)
    if failed_at < clock.now() - KEPT_FOR:
        return None
    identity, content = letter_id(failed), Content(failed.key, failed.headers, failed.value)
    shown = shown_headers(failed.headers)
    said = claims(failed.key, failed.headers)
    packed = await _sealed(database, said["run_id"], content.packed(), place_of(identity))
    sealed = None if box is None or packed is None else box.seal(packed, place_of(identity))
    row = (
        identity,
        failed.origin.topic,
        failed.origin.group,
        _bounded(failed.partition),
        failed.offset,
        failed.dlq_partition,
        failed.dlq_offset,
        plain(failed.key),
        said["message_type"],
        said["tenant_id"],
        said["run_id"],
        orjson.dumps([asdict(header) for header in shown]).decode(),
        len(failed.headers) - len(shown),
        len(failed.value),
        plain(failed.error_type) or "unknown",
        plain(failed.error_message),
        _bounded(failed.attempts),
        failed_at,
        sealed,
    )
    return identity if await tables.insert(database, row) else None


async def _sealed(database: Database, run_id: str | None, packed: bytes, place: str) -> bytes | None:
    """With the key of whoever the run that it names belongs to, where there is one; None where they are erased."""
    key_id = None if run_id is None else await tables.key_of_run(database, run_id)
    if key_id is None:
        return packed
    key = (await database.subjects.named([key_id]))[key_id]
    return key.seal_named(packed, place) if key.seals else None


def _moment(milliseconds: int) -> datetime:
    """Not before 1970, and not after now."""
    now = clock.now()
    return _EPOCH + timedelta(milliseconds=max(0, min(milliseconds, (now - _EPOCH) // timedelta(milliseconds=1))))


def _bounded(number: int | None) -> int | None:
    return None if number is None else min(number, _INTEGER)
