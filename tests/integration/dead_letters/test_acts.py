"""What operators do with dead letters: each act is in the log, and what it promises is in the same commit."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from codeagent.dead_letters.letter import DeadLetter, LetterState
from codeagent.dead_letters.letters import DeadLetters
from codeagent.dead_letters.tables import LetterFilter
from codeagent.encryption import SecretBox, new_key_line, parse_keys
from codeagent.errors import CodeAgentError, Conflict, NotFound, Unavailable, VersionMismatch
from codeagent.eventlog.database import Database
from codeagent.eventlog.sweep import Sweeper
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.messages.dead_letter_events import DeadLetterDiscarded, DeadLetterRead, DeadLetterRedriven
from codeagent.messages.ids import INSTALLATION
from tests.integration.dead_letters.conftest import Desk
from tests.integration.dead_letters.records import (
    CONTENT,
    DLQ,
    OPERATOR,
    RUN,
    dead_letter,
    envelope_headers,
)


@pytest.fixture
async def letter(desk: Desk) -> DeadLetter:
    [kept] = await desk.keep(dead_letter())
    return kept


async def sent(desk: Desk) -> int:
    [row] = await desk.database.fetch("SELECT count(*) AS rows FROM outbox")
    return int(row["rows"])


async def test_the_same_record_is_on_its_way_once_the_fact_is_there(desk: Desk) -> None:
    headers = [*envelope_headers(), ("\x00 twice", b"\xff"), ("\x00 twice", b"")]
    [kept] = await desk.keep(dead_letter(headers))
    redriven = await desk.letters.redrive(OPERATOR, kept)
    assert (redriven.state, redriven.version, redriven.redrives) == (LetterState.REDRIVEN, 2, 1)
    assert (redriven.settled_by, redriven.kept) == ("operator", True)
    [row] = await Sweeper(desk.database).due_messages()
    assert (row.topic, row.key, row.headers, row.value) == (kept.topic, RUN, headers, CONTENT)
    assert row.goes_when_sent
    [fact] = await desk.facts(kept)
    assert fact.decode() == DeadLetterRedriven(letter_id=kept.id, topic=DLQ, partition=0, offset=0, redrives=1)
    assert (fact.tenant_id, fact.metadata["authid"]) == (INSTALLATION, "operator")


async def test_what_was_sent_is_sent_a_second_time_only_when_that_is_said(desk: Desk, letter: DeadLetter) -> None:
    redriven = await desk.letters.redrive(OPERATOR, letter)
    with pytest.raises(Conflict) as refused:
        await desk.letters.redrive(OPERATOR, redriven)
    assert refused.value.code == "invalid_state_transition"
    assert await sent(desk) == 1
    assert (await desk.letters.redrive(OPERATOR, redriven, again=True)).redrives == 2
    assert await sent(desk) == 2


async def test_of_two_operators_at_once_one_acts(desk: Desk, letter: DeadLetter) -> None:
    acts = [desk.letters.redrive(OPERATOR, letter) for _ in range(3)]
    acts.append(desk.letters.discard(OPERATOR, letter, "of a test"))
    done = await asyncio.gather(*acts, return_exceptions=True)
    assert sorted(type(each).__name__ for each in done) == ["DeadLetter", *["VersionMismatch"] * 3]
    assert len(await desk.facts(letter)) == 1
    assert await sent(desk) == sum(isinstance(each, DeadLetter) for each in done[:3])


async def test_nothing_is_sent_when_the_fact_cannot_be_written(
    desk: Desk, letter: DeadLetter, newest_database_url: str
) -> None:
    await desk.database.write("REVOKE EXECUTE ON FUNCTION append_fact_v2 FROM codeagent_edge")
    with pytest.raises((CodeAgentError, asyncpg.PostgresError)):
        await desk.letters.redrive(OPERATOR, letter)
    assert await sent(desk) == 0
    assert (await desk.letters.find(letter.id)).state is LetterState.OPEN


async def test_discarding_forgets_what_the_record_holds_for_good(desk: Desk, letter: DeadLetter) -> None:
    gone = await desk.letters.discard(OPERATOR, letter, "of a load test")
    assert (gone.state, gone.reason, gone.kept, gone.headers) == (LetterState.DISCARDED, "of a load test", False, [])
    [fact] = await desk.facts(letter)
    assert isinstance(told := fact.decode(), DeadLetterDiscarded)
    assert told.reason == "of a load test"
    for act in (desk.letters.redrive, desk.letters.read):
        with pytest.raises(Conflict, match="discarded"):
            await act(OPERATOR, gone)
    assert await desk.letters.discard(OPERATOR, gone, "twice") == gone
    await desk.database.write("UPDATE dead_letters SET state = 'open', record_sealed = $1", b"again")
    assert await desk.column("record_sealed", letter) is None


async def test_whoever_reads_the_content_is_in_the_log_before_it_is_told(desk: Desk, letter: DeadLetter) -> None:
    assert (await desk.letters.read(OPERATOR, letter)).value == CONTENT
    await desk.letters.read(OPERATOR, letter)
    facts = await desk.facts(letter)
    assert [(fact.version, fact.type) for fact in facts] == [(1, DeadLetterRead.NAME), (2, DeadLetterRead.NAME)]
    assert (await desk.letters.find(letter.id)).version == 1, "a reading changes nothing"


async def test_without_the_key_that_sealed_it_nothing_is_sent_and_nothing_is_told(
    desk: Desk, letter: DeadLetter, newest_database_url: str
) -> None:
    walled = Database(newest_database_url, connections=1, role=EDGE_ROLE)
    other = DeadLetters(walled, SecretBox(parse_keys([new_key_line("other")])))
    with pytest.raises(Unavailable, match="not at hand"):
        await other.redrive(OPERATOR, letter)
    with pytest.raises(CodeAgentError) as keyless:
        await DeadLetters(walled, None).read(OPERATOR, letter)
    assert (keyless.value.code, keyless.value.status) == ("not_implemented", 501)
    assert await sent(desk) == 0
    assert await desk.facts(letter) == []
    await walled.close()


async def test_a_list_is_narrowed_down_and_read_page_by_page(desk: Desk) -> None:
    await desk.keep(dead_letter(offset=1), dead_letter(offset=2, error=ValueError("bug")), dead_letter(offset=3))
    newest, bug, oldest = await desk.all()
    assert [newest.dlq_offset, bug.dlq_offset, oldest.dlq_offset] == [3, 2, 1]
    await desk.letters.discard(OPERATOR, oldest, "of a test")

    async def found(limit: int = 10, after: str | None = None, **wanted: object) -> list[int]:
        page, _ = await desk.letters.page(LetterFilter(**wanted), after, limit)  # type: ignore[arg-type]
        return [letter.dlq_offset for letter in page]

    assert await found(error_type="ValueError") == [2]
    assert await found(state="open") == [3, 2]
    assert await found(state="discarded") == [1]
    assert await found(topic="another") == []
    assert await found(since=newest.failed_at) == [
        each.dlq_offset for each in (newest, bug, oldest) if each.failed_at >= newest.failed_at
    ]
    _, cursor = await desk.letters.page(LetterFilter(), None, 2)
    assert await found(after=cursor) == [1]
    assert [letter.dlq_offset for letter in await desk.letters.oldest_open(LetterFilter(), 1)] == [2]


async def test_sessions_of_tenants_see_no_dead_letter_and_the_edge_makes_and_removes_none(
    desk: Desk, letter: DeadLetter, newest_database_url: str
) -> None:
    walled = Database(newest_database_url, connections=1, role=EDGE_ROLE)
    for tenant in ("", "ten_a"):
        assert await walled.fetch("SELECT id FROM dead_letters", tenant=tenant) == []
        assert await walled.write("UPDATE dead_letters SET reason = 'x' RETURNING id", tenant=tenant) == []
    for statement in ("DELETE FROM dead_letters", "UPDATE dead_letters SET topic = 'x'"):
        with pytest.raises((CodeAgentError, asyncpg.InsufficientPrivilegeError)):
            await walled.write(statement, tenant=INSTALLATION)
    await walled.close()


async def test_what_is_no_dead_letter_is_not_found(desk: Desk) -> None:
    for name in ("dlq_x", "", "dlq_00000000000000000000000000", "'\x00"):
        with pytest.raises(NotFound):
            await desk.letters.find(name)


async def test_a_change_takes_the_version_that_was_seen(desk: Desk, letter: DeadLetter) -> None:
    await desk.letters.redrive(OPERATOR, letter)
    with pytest.raises(VersionMismatch):
        await desk.letters.discard(OPERATOR, letter, "of a test")
