"""Every record of a dead-letter topic becomes one row, whatever is in it, and however often it is read."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeagent import clock
from codeagent.broker.admin import DEAD_LETTER_CONFIG
from codeagent.broker.dead_letters import read_failed
from codeagent.broker.topics import RUN_COMMANDS
from codeagent.dead_letters import tables
from codeagent.dead_letters.letter import (
    KEPT_FOR,
    MOST_HEADERS,
    Content,
    LetterState,
    claims,
    place_of,
    plain,
    shown_headers,
)
from codeagent.errors import Conflict
from codeagent.eventlog.database import Database
from codeagent.eventlog.sealed import SEALED_COLUMNS, reseal
from codeagent.relay.dead_letters import DeadLetterKeeper
from codeagent.subjects.key import key_id_of, named_key
from codeagent.telemetry import metrics
from tests.integration.dead_letters.conftest import Desk
from tests.integration.dead_letters.records import (
    BOX,
    CONTENT,
    DLQ,
    OPERATOR,
    ORIGIN,
    RUN,
    TENANT,
    dead_letter,
    envelope_headers,
    record,
)

AGED = "UPDATE dead_letters SET received_at = received_at - $1::interval WHERE id = $2"


async def test_a_record_becomes_a_row_that_says_what_failed_where_and_why(desk: Desk) -> None:
    headers = envelope_headers()
    [letter] = await desk.keep(dead_letter(headers))
    assert (letter.state, letter.version, letter.kept) == (LetterState.OPEN, 1, True)
    assert (letter.topic, letter.consumer_group, letter.partition, letter.offset) == (
        RUN_COMMANDS,
        "agent-worker",
        2,
        4711,
    )
    assert (letter.error_type, letter.attempts, letter.value_bytes) == ("invalid_payload", 1, len(CONTENT))
    assert letter.error_message == "run.cancel version 1 does not match its schema"
    assert (letter.key, letter.run_id, letter.tenant_id) == (RUN, RUN, TENANT)
    assert letter.message_type == "io.codeagent.run.cancel.v1"
    assert {each.name: each.value for each in letter.headers} == {name: value.decode() for name, value in headers}


async def test_the_same_record_read_twice_makes_one_row_and_undoes_nothing(desk: Desk) -> None:
    same = dead_letter()
    [letter] = await desk.keep(same, same)
    await desk.letters.discard(OPERATOR, letter, "of a test")
    [after] = await desk.keep(same)
    assert (after.id, after.state) == (letter.id, LetterState.DISCARDED)


async def test_a_broker_that_counts_from_the_beginning_again_hides_no_new_record(desk: Desk) -> None:
    earlier = int(clock.now().timestamp() * 1_000) - 60_000
    assert len(await desk.keep(dead_letter(timestamp=earlier), dead_letter(timestamp=earlier + 1))) == 2


async def test_what_is_kept_of_a_record_is_sealed_and_nothing_of_it_is_logged(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        [letter] = await desk.keep(dead_letter([*envelope_headers(), ("x-note", CONTENT)]))
    [row] = await desk.database.fetch("SELECT d::text AS whole FROM dead_letters d")
    assert "MARKED" not in row["whole"]
    assert CONTENT.hex() not in row["whole"]
    assert "MARKED" not in caplog.text
    assert [each.value for each in letter.headers if each.name == "x-note"] == [None]
    read = await desk.letters.read(OPERATOR, letter)
    assert (read.value, read.headers[-1]) == (CONTENT, ("x-note", CONTENT))


async def test_an_order_that_reached_no_stream_is_sealed_with_the_key_of_whoever_gave_it(desk: Desk) -> None:
    theirs, subjects = f"usr_{clock.new_uuid().hex}", desk.database.subjects
    key = await subjects.of(TENANT, theirs)
    assert key is not None
    [letter] = await desk.keep(dead_letter(envelope_headers(actor=("app_user", theirs))))
    assert (await desk.column("key_id", letter), await desk.column("author_id", letter)) == (key.id, theirs)
    sealed = await desk.column("record_sealed", letter)
    assert isinstance(sealed, bytes)
    assert named_key(BOX.open(sealed, place_of(letter.id))) is not None
    assert (await desk.letters.read(OPERATOR, letter)).value == CONTENT
    await subjects.shred(key.id, clock.now())
    await asyncio.sleep(0.1)  # longer than keys are remembered here
    with pytest.raises(Conflict, match="erased"):
        await desk.letters.read(OPERATOR, letter)
    late, _ = await desk.keep(dead_letter(envelope_headers(actor=("app_user", theirs)), offset=1))
    assert not late.kept, "who is erased leaves nothing"


async def test_whoever_a_record_makes_up_gets_no_key(desk: Desk) -> None:
    made_up = f"usr_{clock.new_uuid().hex}"
    [letter] = await desk.keep(dead_letter(envelope_headers(actor=("app_user", made_up))))
    assert (letter.kept, await desk.column("key_id", letter), await desk.column("author_id", letter)) == (
        True,
        None,
        made_up,
    )
    key_id = key_id_of(TENANT, made_up)
    assert (await desk.database.subjects.named([key_id]))[key_id].lost
    assert (await desk.letters.read(OPERATOR, letter)).value == CONTENT


async def test_sealed_records_get_under_a_new_key_with_everything_else(desk: Desk) -> None:
    await desk.keep(dead_letter())
    [column] = [each for each in SEALED_COLUMNS if each.table == "dead_letters"]
    [done] = await reseal(desk.database, BOX, [column])
    assert (done.unreadable, sum(done.by_key.values())) == (0, 1)


async def test_without_a_key_a_record_is_listed_and_its_bytes_stay_in_the_topic_alone(desk: Desk) -> None:
    await DeadLetterKeeper(desk.database, None, {DLQ: ORIGIN})(dead_letter())
    [letter] = await desk.all()
    assert not letter.kept
    for act in (desk.letters.redrive, desk.letters.read):
        with pytest.raises(Conflict, match="not kept"):
            await act(OPERATOR, letter)
    assert await desk.facts(letter) == []
    assert (await desk.letters.discard(OPERATOR, letter, "no use")).state is LetterState.DISCARDED


async def test_a_record_waits_for_a_database_that_is_away(newest_database_url: str, desk: Desk) -> None:
    address = ["postgresql://codeagent@127.0.0.1:1/away"]
    database = Database(lambda: address[0], connections=1)
    keeping = asyncio.create_task(DeadLetterKeeper(database, BOX, {DLQ: ORIGIN})(dead_letter()))
    done, _ = await asyncio.wait({keeping}, timeout=0.5)
    assert not done, "its offset would be committed"
    address[0] = newest_database_url
    async with asyncio.timeout(20):
        await keeping
    assert len(await desk.all()) == 1
    await database.close()


async def test_what_was_written_by_whoever_is_shown_bounded_and_plain(desk: Desk) -> None:
    hostile = [
        ("ce_tenantid", b"ten_a'; DROP TABLE events; --"),
        ("ce_partitionkey", b"run_of_nobody"),
        ("ce_type", "\u202eio.codeagent\x00\x1b[2J\n".encode() * 200),
        ("dlq-topic", b"codeagent.sandbox.commands.v1"),
        ("dlq-offset", b"7"),
        ("\x00\x1b[31m" + "n" * 400, b"\xff\xfe"),
        *((f"x-{number}", b"v") for number in range(200)),
    ]
    [letter] = await desk.keep(dead_letter(hostile, value=b"\xff\x00", key=b"\xff\x00\x1b"))
    assert (letter.tenant_id, letter.run_id) == (None, None)
    assert (letter.topic, letter.offset) == (RUN_COMMANDS, 4711), "what the record says of its failure is not believed"
    assert (len(letter.headers), letter.headers_omitted) == (MOST_HEADERS, len(hostile) - MOST_HEADERS)
    shown = [letter.key, letter.message_type or "", *(f"{each.name}{each.value or ''}" for each in letter.headers)]
    assert all(text.isprintable() and len(text) <= 600 for text in shown)
    content = await desk.letters.read(OPERATOR, letter)
    assert (content.headers, content.value, content.key) == (hostile, b"\xff\x00", b"\xff\x00\x1b")


async def test_a_record_that_somebody_put_there_by_hand_is_kept_as_well(desk: Desk) -> None:
    bare = record(DLQ, [("dlq-partition", b"-1"), ("dlq-attempts", b"9" * 40)], None, key=None, timestamp=2**62)
    [letter] = await desk.keep(bare)
    assert (letter.error_type, letter.partition, letter.attempts, letter.value_bytes) == ("unknown", None, None, 0)
    assert letter.failed_at <= clock.now()


async def test_the_largest_record_of_a_topic_is_kept_whole(desk: Desk) -> None:
    largest = b"x" * 1_048_576
    [letter] = await desk.keep(dead_letter(value=largest))
    assert (await desk.letters.read(OPERATOR, letter)).value == largest


async def test_rows_go_after_thirty_days_and_records_that_old_make_none(desk: Desk) -> None:
    assert timedelta(milliseconds=int(DEAD_LETTER_CONFIG["retention.ms"])) == KEPT_FOR
    month_ago = int((clock.now() - KEPT_FOR).timestamp() * 1_000)
    assert await desk.keep(dead_letter(timestamp=month_ago - 1_000)) == []
    new, old = await desk.keep(dead_letter(offset=1), dead_letter(offset=2))
    await desk.database.write(AGED, KEPT_FOR, old.id)
    assert await tables.forget(desk.database, KEPT_FOR, 10) == 1
    assert [letter.id for letter in await desk.all()] == [new.id]


async def test_how_many_are_open_and_since_when_is_measured(desk: Desk) -> None:
    first, second = await desk.keep(dead_letter(offset=1), dead_letter(offset=2))
    await desk.database.write(AGED, timedelta(hours=1), first.id)
    await desk.keeper.measure()
    assert metrics.DEAD_LETTERS_OPEN._value.get() == 2
    assert 3_600 <= metrics.DEAD_LETTERS_OLDEST._value.get() < 3_700
    for letter in (first, second):
        await desk.letters.discard(OPERATOR, letter, "of a test")
    await desk.keeper.measure()
    assert (metrics.DEAD_LETTERS_OPEN._value.get(), metrics.DEAD_LETTERS_OLDEST._value.get()) == (0, 0)


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@given(st.lists(st.tuples(names, st.binary(max_size=600)), max_size=60), st.binary(max_size=50), st.binary(max_size=50))
def test_any_record_comes_apart_and_together_again(headers: list[tuple[str, bytes]], key: bytes, value: bytes) -> None:
    failed = read_failed(dead_letter(headers, value=value, key=key), ORIGIN)
    content = Content(failed.key, failed.headers, failed.value)
    assert Content.unpacked(content.packed()) == Content(key, headers, value)
    assert (failed.partition, failed.offset, failed.error_type) == (2, 4711, b"invalid_payload")
    told = [
        plain(key),
        *(each.name for each in shown_headers(headers)),
        *filter(None, asdict(claims(key, headers)).values()),
    ]
    assert all(text.isprintable() for text in told)
