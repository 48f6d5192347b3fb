"""Dead letters as operators see them: listed, read, sent again, discarded, and each act written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import orjson

from codeagent import clock
from codeagent.broker.topics import dead_letter_topic
from codeagent.cursors import format_time_cursor, page_of, parse_time_cursor
from codeagent.dead_letters import tables
from codeagent.dead_letters.letter import PREFIX, Content, DeadLetter, Header, LetterState, place_of
from codeagent.dead_letters.tables import LetterFilter
from codeagent.encryption import NotOpened, SecretBox
from codeagent.errors import CodeAgentError, Conflict, NotFound, Unavailable
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import Author, Change, ControlPlane
from codeagent.eventlog.sealing import outbox_place
from codeagent.messages.dead_letter_events import (
    DeadLetterDiscarded,
    DeadLetterEvent,
    DeadLetterRead,
    DeadLetterRedriven,
)
from codeagent.messages.ids import dead_letter_stream, parse_typed_id
from codeagent.subjects.key import named_key

MOST_REASON = 500


class DeadLetters:
    """Authors are of the tenant `INSTALLATION`. Without a `box` no record can be opened: they are listed and
    discarded."""

    def __init__(self, database: Database, box: SecretBox | None) -> None:
        self._database = database
        self._control = ControlPlane(database)
        self._box = box

    async def find(self, letter_id: str) -> DeadLetter:
        """Raises `NotFound`."""
        rows: Sequence[Row] = ()
        if parse_typed_id(PREFIX, letter_id) is not None:
            rows = await tables.find(self._database, letter_id)
        if not rows:
            raise NotFound("There is no such dead letter.")
        return _from_row(rows[0])

    async def page(
        self, wanted: LetterFilter, after: str | None, limit: int
    ) -> tuple[Sequence[DeadLetter], str | None]:
        """Newest first, and the next page's cursor. Raises `Rejected` for a cursor that is none."""
        received_at, letter_id = parse_time_cursor(PREFIX, after)
        rows = await tables.page(self._database, wanted, received_at, letter_id, limit + 1)
        found = [_from_row(row) for row in rows]
        return page_of(found, limit, lambda letter: format_time_cursor(letter.received_at, letter.id))

    async def oldest_open(self, wanted: LetterFilter, most: int) -> Sequence[DeadLetter]:
        """Those that can be sent again, the first to come first, as runs would have had them."""
        asked = replace(wanted, state=LetterState.OPEN)
        return [_from_row(row) for row in await tables.oldest_kept(self._database, asked, most)]

    async def read(self, author: Author, letter: DeadLetter) -> Content:
        """What the record holds, once it is written down that somebody has looked. Raises as `redrive` does."""
        async with self._control.change(author) as change:
            content, _ = await self._content(change, letter)
            await _record(change, letter, DeadLetterRead(**_named(letter)))
        return content

    async def redrive(self, author: Author, letter: DeadLetter, *, again: bool = False) -> DeadLetter:
        """Has the same record sent to the topic that it failed on, within a second or so.

        Raises `Conflict` (`invalid_state_transition`) for one that is discarded, was sent already unless `again`, or
        whose bytes were not kept; `VersionMismatch` where it has changed since it was read; `not_implemented` without a
        key-encryption key, and `Unavailable` without the one that sealed it.
        """
        if letter.state is LetterState.REDRIVEN and not again:
            raise Conflict("It was sent already.", code="invalid_state_transition")
        async with self._control.change(author) as change:
            content, key_id = await self._content(change, letter)
            key = content.key.decode(errors="replace").replace("\x00", "\ufffd")
            headers = orjson.dumps(content.packed_headers()).decode()
            row_id = clock.new_uuid()
            value = await _for_outbox(change, key_id, content.value, row_id)
            await tables.enqueue(change, row_id, letter.topic, key, headers, value)
            row = await tables.settle(change, letter.id, LetterState.REDRIVEN, author.id, "")
            await _record(change, letter, DeadLetterRedriven(**_named(letter), redrives=row["redrives"]))
        return _from_row(row)

    async def discard(self, author: Author, letter: DeadLetter, reason: str) -> DeadLetter:
        """For good: what the record holds is forgotten. One that is discarded stays as it is. Raises
        `VersionMismatch`."""
        if letter.state is LetterState.DISCARDED:
            return letter
        async with self._control.change(author) as change:
            await tables.sealed(change, letter.id, letter.version)
            row = await tables.settle(change, letter.id, LetterState.DISCARDED, author.id, reason)
            await _record(change, letter, DeadLetterDiscarded(**_named(letter), reason=reason))
        return _from_row(row)

    async def _content(self, change: Change, letter: DeadLetter) -> tuple[Content, str | None]:
        """And the id of the subject's key that it was sealed with, where it was."""
        if letter.state is LetterState.DISCARDED:
            raise Conflict("It is discarded.", code="invalid_state_transition")
        if not letter.kept:
            raise Conflict(
                "Its bytes were not kept: there was no key to seal them with. They are in the dead-letter topic.",
                code="invalid_state_transition",
            )
        sealed = await tables.sealed(change, letter.id, letter.version)
        assert sealed is not None, "the row is as it was read"
        if self._box is None:
            detail = "This installation has no key to open dead letters with."
            raise CodeAgentError(detail, code="not_implemented", status=501)
        place = place_of(letter.id)
        try:
            inner = self._box.open(sealed, place)
            opened = (await change.subjects.open_named({place: inner}))[place]
        except NotOpened as error:
            raise Unavailable(f"It cannot be opened: {error.detail}.") from None
        if opened is None:
            raise Conflict("What it holds was erased.", code="invalid_state_transition")
        named = named_key(inner)
        return Content.unpacked(opened), None if named is None else named[0]


async def _for_outbox(change: Change, key_id: str | None, value: bytes, row_id: UUID) -> bytes:
    """As ledgers keep what belongs to a person."""
    key = None if key_id is None else (await change.subjects.named([key_id]))[key_id]
    return value if key is None else key.seal_named(value, outbox_place(row_id))


async def _record(change: Change, letter: DeadLetter, fact: DeadLetterEvent) -> None:
    await change.append(dead_letter_stream(letter.id), fact)


def _named(letter: DeadLetter) -> dict[str, object]:
    return {
        "letter_id": letter.id,
        "topic": dead_letter_topic(letter.topic, letter.consumer_group),
        "partition": letter.dlq_partition,
        "offset": letter.dlq_offset,
    }


def _from_row(row: Row) -> DeadLetter:
    said = {**row, "state": LetterState(row["state"])}
    return DeadLetter(**{**said, "headers": [Header(**each) for each in orjson.loads(row["headers"])]})
