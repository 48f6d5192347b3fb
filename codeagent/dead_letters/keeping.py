"""From a record of a dead-letter topic to its row: the same record, read again, makes no second one."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import orjson

from codeagent import clock
from codeagent.broker.dead_letters import FailedRecord
from codeagent.dead_letters import tables
from codeagent.dead_letters.letter import (
    KEPT_FOR,
    PREFIX,
    RUN,
    Claims,
    Content,
    claims,
    place_of,
    plain,
    shown_headers,
)
from codeagent.encryption import SecretBox
from codeagent.eventlog.database import Database
from codeagent.messages.ids import derived_uuid, typed_id
from codeagent.subjects.key import key_id_of

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
    key_id, packed = await _sealed(database, said, content.packed(), place_of(identity))
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
        said.message_type,
        said.tenant_id,
        said.run_id,
        orjson.dumps([asdict(header) for header in shown]).decode(),
        len(failed.headers) - len(shown),
        len(failed.value),
        plain(failed.error_type) or "unknown",
        plain(failed.error_message),
        _bounded(failed.attempts),
        failed_at,
        sealed,
        key_id,
        said.author_id,
    )
    return identity if await tables.insert(database, row) else None


async def _sealed(database: Database, said: Claims, packed: bytes, place: str) -> tuple[str | None, bytes | None]:
    """Under the key of whoever the run that it names belongs to, or else of whoever wrote it, where there is one: that
    key's id, and the bytes. None for them where either of the two is being erased, or was."""
    of_run = None if said.run_id is None else await tables.key_of_run(database, said.run_id)
    of_author = await _key_of_author(database, said)
    ids = [key_id for key_id in (of_run, of_author) if key_id is not None]
    keys = await database.subjects.named(ids) if ids else {}
    if of_author != of_run and of_author is not None and keys[of_author].lost:
        ids.remove(of_author)  # nobody of that name has ever written anything: whoever put it there made it up
    if not ids:
        return None, packed
    seals = all(keys[key_id].seals for key_id in ids)
    return ids[0], keys[ids[0]].seal_named(packed, place) if seals else None


async def _key_of_author(database: Database, said: Claims) -> str | None:
    if said.author_id is None or said.tenant_id is None or not database.subjects.in_use:
        return None
    if said.author_type == RUN:
        return await tables.key_of_run(database, said.author_id)
    return key_id_of(said.tenant_id, said.author_id)


def _moment(milliseconds: int) -> datetime:
    """Not before 1970, and not after now."""
    now = clock.now()
    return _EPOCH + timedelta(milliseconds=max(0, min(milliseconds, (now - _EPOCH) // timedelta(milliseconds=1))))


def _bounded(number: int | None) -> int | None:
    return None if number is None else min(number, _INTEGER)
