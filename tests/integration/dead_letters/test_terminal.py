"""`codeagent dlq`: what an operator has when the edge is down."""

from __future__ import annotations

import asyncio
import json

import pytest
from typer.testing import CliRunner, Result

from codeagent.cli.main import app
from codeagent.dead_letters.letters import DeadLetters
from codeagent.encryption import SecretBox, new_key_line, parse_keys
from codeagent.messages.dead_letter_events import DeadLetterDiscarded, DeadLetterRead, DeadLetterRedriven
from codeagent.relay.dead_letters import DeadLetterKeeper
from tests.integration.dead_letters.conftest import Desk
from tests.integration.dead_letters.records import CONTENT, DLQ, ORIGIN, RUN, dead_letter, envelope_headers

KEK = new_key_line("test")


@pytest.fixture
async def desk(desk: Desk, newest_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("CODEAGENT_DATABASE_URL", newest_database_url)
    monkeypatch.setenv("CODEAGENT_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("CODEAGENT_KEK", KEK)
    box = SecretBox(parse_keys([KEK]))
    return Desk(desk.database, DeadLetters(desk.database, box), DeadLetterKeeper(desk.database, box, {DLQ: ORIGIN}))


async def dlq(*arguments: str) -> Result:
    """In a thread: commands run a loop of their own."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["dlq", *arguments])


async def test_letters_are_listed_shown_sent_again_and_discarded_without_an_edge(desk: Desk) -> None:
    [first] = await desk.keep(dead_letter(offset=1))
    second, _ = await desk.keep(dead_letter(offset=2, error=ValueError("bug")))
    listed = (await dlq("list")).stdout.splitlines()
    assert [line.split()[0] for line in listed] == [second.id, first.id]
    assert listed[0].endswith(f"ValueError  {RUN}")
    assert [line.split()[0] for line in (await dlq("list", "--error", "invalid_payload")).stdout.splitlines()] == [
        first.id
    ]
    shown = json.loads((await dlq("show", first.id)).stdout)
    assert (shown["state"], shown["content"]) == ("open", None)
    assert (await dlq("redrive", first.id)).stdout == f"{first.id} goes to codeagent.run.commands.v1\n"
    twice = await dlq("redrive", first.id)
    assert (twice.exit_code, "--again sends it once more" in twice.stderr) == (2, True)
    assert (await dlq("redrive", first.id, "--again")).exit_code == 0
    assert (await dlq("discard", second.id, "--reason", "of a test")).exit_code == 0
    assert [fact.type for fact in await desk.facts(first)] == [DeadLetterRedriven.NAME] * 2
    [told] = await desk.facts(second)
    assert (told.type, told.metadata["authid"]) == (DeadLetterDiscarded.NAME, "operator")
    assert (await dlq("list")).stdout == ""
    assert len((await dlq("list", "--state", "all")).stdout.splitlines()) == 2


async def test_content_is_shown_when_asked_for_to_no_terminals_harm_and_that_is_written_down(desk: Desk) -> None:
    [letter] = await desk.keep(dead_letter([*envelope_headers(), ("x", b"\x1b[31m")], value=b"\x1b[2J" + CONTENT))
    shown = await dlq("show", letter.id, "--value")
    assert "\x1b" not in shown.stdout
    assert json.loads(shown.stdout)["content"]["value"]["value"] == f"\x1b[2J{CONTENT.decode()}"
    assert [fact.type for fact in await desk.facts(letter)] == [DeadLetterRead.NAME]


async def test_all_that_fit_are_sent_again_the_oldest_first_and_no_more_than_was_said(desk: Desk) -> None:
    await desk.keep(*(dead_letter(offset=number) for number in (1, 2, 3)), dead_letter(offset=4, error=ValueError()))
    _, third, second, first = await desk.all()
    sent = (await dlq("redrive", "--all", "--error", "invalid_payload", "--most", "2")).stdout.splitlines()
    assert [line.split()[0] for line in sent] == [first.id, second.id, "2"]
    rest = (await dlq("redrive", "--all", "--error", "invalid_payload")).stdout.splitlines()
    assert [line.split()[0] for line in rest] == [third.id, "1"]
    assert (await dlq("redrive", "--all", "--topic", "another")).stdout == "0 are sent again\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("redrive",),
        ("redrive", "dlq_x", "--all"),
        ("redrive", "--all", "--again"),
        ("redrive", "dlq_x", "--error", "e"),
        ("list", "--state", "closed"),
        ("list", "--since", "yesterday"),
        ("list", "--since", "2026-11-23T00:00:00"),
        ("discard", "dlq_x", "--reason", ""),
        ("discard", "dlq_x"),
    ],
)
async def test_what_makes_no_sense_is_refused_before_anything_is_asked(arguments: tuple[str, ...]) -> None:
    assert (await dlq(*arguments)).exit_code == 2


async def test_what_is_not_there_is_said_so(desk: Desk) -> None:
    missing = await dlq("show", "dlq_00000000000000000000000000")
    assert (missing.exit_code, missing.stderr) == (1, "codeagent: There is no such dead letter.\n")
