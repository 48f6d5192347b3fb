"""What `codeagent dlq` does, on the database itself and under the edge's role."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import AwareDatetime, TypeAdapter, ValidationError

from codeagent.cli.administer import opened
from codeagent.cli.identity import secret_box
from codeagent.cli.operate import FAILED, guarded, say
from codeagent.clock import new_uuid
from codeagent.dead_letters.letter import DeadLetter, LetterState
from codeagent.dead_letters.letters import MOST_REASON, DeadLetters
from codeagent.dead_letters.tables import LetterFilter
from codeagent.edge.dead_letter_models import DeadLetterModel
from codeagent.errors import Conflict, InvalidInput, VersionMismatch
from codeagent.eventlog.facts import Author
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.messages.ids import INSTALLATION

PAGE = 200
ALL = "all"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which are meant, as typed."""

    topic: str | None
    state: str
    error: str | None
    since: str | None

    def filter(self) -> LetterFilter:
        """Raises `InvalidInput`."""
        states = [*LetterState, ALL]
        if self.state not in states:
            raise InvalidInput(f"a state is one of {', '.join(states)}")
        state = None if self.state == ALL else self.state
        return LetterFilter(self.topic, state, self.error, None if self.since is None else _moment(self.since))


def _moment(text: str) -> datetime:
    try:
        return TypeAdapter(AwareDatetime).validate_strings(text)
    except ValidationError:
        raise InvalidInput("a moment is a day, a time and a zone, as in 2026-11-23T00:00:00Z") from None


def show_all(data_dir: Path | None, wanted: Wanted, limit: int) -> int:
    async def listing() -> int:
        asked, cursor, left = wanted.filter(), None, limit
        async with _letters(data_dir) as letters:
            while left:
                found, cursor = await letters.page(asked, cursor, min(left, PAGE))
                for letter in found:
                    say(_line(letter))
                left -= len(found)
                if cursor is None:
                    return 0
        sys.stderr.write(f"There are more than these {limit}: narrow them down, or give another --limit.\n")
        return 0

    return guarded(listing())


def show_one(data_dir: Path | None, letter_id: str, *, value: bool) -> int:
    async def showing() -> int:
        async with _letters(data_dir) as letters:
            letter = await letters.find(letter_id)
            content = await letters.read(_operator(), letter) if value else None
        # In ASCII: whatever the record holds, it is nothing to the terminal.
        say(json.dumps(DeadLetterModel.of(letter, content).model_dump(mode="json"), indent=2))
        return 0

    return guarded(showing())


def send(data_dir: Path | None, letter_id: str, *, again: bool) -> int:
    async def sending() -> int:
        async with _letters(data_dir) as letters:
            letter = await letters.find(letter_id)
            if letter.state is LetterState.REDRIVEN and not again:
                raise InvalidInput(f"it was sent {letter.settled_at:%Y-%m-%d %H:%M} UTC; --again sends it once more")
            sent = await letters.redrive(_operator(), letter, again=again)
        say(f"{sent.id} goes to {sent.topic}")
        return 0

    return guarded(sending())


def send_all(data_dir: Path | None, wanted: Wanted, most: int) -> int:
    async def sending() -> int:
        sent = left = 0
        async with _letters(data_dir) as letters:
            for letter in await letters.oldest_open(wanted.filter(), most):
                try:
                    await letters.redrive(_operator(), letter)
                except (Conflict, VersionMismatch) as error:
                    sys.stderr.write(f"codeagent: {letter.id}: {error.detail}\n")
                    left += 1
                else:
                    say(f"{letter.id} goes to {letter.topic}")
                    sent += 1
        say(f"{sent} are sent again")
        return FAILED if left else 0

    return guarded(sending())


def forget(data_dir: Path | None, letter_id: str, reason: str) -> int:
    async def forgetting() -> int:
        if not 1 <= len(reason) <= MOST_REASON or not reason.isprintable():
            raise InvalidInput(f"a reason has 1 to {MOST_REASON} printable characters")
        async with _letters(data_dir) as letters:
            gone = await letters.discard(_operator(), await letters.find(letter_id), reason)
        say(f"{gone.id} is discarded")
        return 0

    return guarded(forgetting())


@asynccontextmanager
async def _letters(data_dir: Path | None) -> AsyncIterator[DeadLetters]:
    async with opened(data_dir, EDGE_ROLE) as (database, settings):
        yield DeadLetters(database, secret_box(settings))


def _operator() -> Author:
    return Author(INSTALLATION, "system", "operator", new_uuid())


def _line(letter: DeadLetter) -> str:
    whose = letter.run_id or letter.key or "-"
    failed = f"{letter.failed_at:%Y-%m-%d %H:%M:%S}"
    return f"{letter.id}  {letter.state:9}  {failed}  {letter.topic}  {letter.error_type}  {whose}"
