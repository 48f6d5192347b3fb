"""Dead letters over HTTP: operators alone see them, and act on the version that they have seen."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from codeagent.encryption import SecretBox, parse_keys
from codeagent.eventlog.database import Database
from codeagent.relay.dead_letters import DeadLetterKeeper
from tests.integration.dead_letters.records import CONTENT, DLQ, ORIGIN, RUN, dead_letter, envelope_headers
from tests.integration.edge.gateway import KEK, Edge

PATH = "/v1/admin/dead-letters"


@pytest.fixture
async def owner(newest_database_url: str) -> AsyncIterator[Database]:
    opened = Database(newest_database_url, connections=1)
    yield opened
    await opened.close()


@pytest.fixture
def keeper(owner: Database) -> DeadLetterKeeper:
    return DeadLetterKeeper(owner, SecretBox(parse_keys([KEK])), {DLQ: ORIGIN})


@pytest.fixture
async def letter(edge: Edge, keeper: DeadLetterKeeper) -> str:
    """Its address."""
    await keeper(dead_letter([*envelope_headers(), ("x-note", b"\xff")]))
    [item] = (await get(edge, PATH)).json()["items"]
    return f"{PATH}/{item['id']}"


async def get(edge: Edge, path: str) -> httpx2.Response:
    return await edge.call(edge.keys.operator, "GET", path)


async def act(edge: Edge, path: str, match: str | None = '"1"', **body: Any) -> httpx2.Response:
    headers = {} if match is None else {"If-Match": match}
    return await edge.call(edge.keys.operator, "POST", path, json=body, headers=headers)


async def facts(owner: Database) -> list[tuple[str, str]]:
    rows = await owner.fetch(
        "SELECT event_type, metadata ->> 'authid' FROM events WHERE stream_id LIKE 'dead_letter-%'"
    )
    return [(row[0], row[1]) for row in rows]


async def test_one_is_shown_without_its_content_unless_that_is_asked_for(
    edge: Edge, owner: Database, letter: str
) -> None:
    shown = await get(edge, letter)
    assert (shown.headers["etag"], shown.headers["cache-control"]) == ('"1"', "no-store")
    assert (shown.json()["run_id"], shown.json()["state"], shown.json()["content"]) == (RUN, "open", None)
    assert "MARKED" not in shown.text
    assert await facts(owner) == []
    content = (await get(edge, f"{letter}?include=value")).json()["content"]
    assert content["value"] == {"name": "value", "value": CONTENT.decode(), "encoding": "utf-8"}
    assert content["headers"][-1] == {"name": "x-note", "value": b64encode(b"\xff").decode(), "encoding": "base64"}
    assert await facts(owner) == [("dead_letter.read", "usr_operator")]


async def test_one_is_sent_again_on_the_version_that_was_seen(edge: Edge, owner: Database, letter: str) -> None:
    for match, status in ((None, 428), ('"7"', 412)):
        assert (await act(edge, f"{letter}/redrive", match)).status_code == status
    sent = await act(edge, f"{letter}/redrive")
    assert (sent.status_code, sent.headers["etag"], sent.json()["state"]) == (202, '"2"', "redriven")
    assert sent.json()["settled_by"] == "usr_operator"
    assert (await act(edge, f"{letter}/redrive")).status_code == 412, "a repeat of the request sends nothing"
    refused = await act(edge, f"{letter}/redrive", '"2"')
    assert (refused.status_code, refused.json()["code"]) == (409, "invalid_state_transition")
    assert (await act(edge, f"{letter}/redrive", '"2"', again=True)).json()["redrives"] == 2
    assert await facts(owner) == [("dead_letter.redriven", "usr_operator")] * 2
    [waiting] = await owner.fetch("SELECT count(*), min(topic), bool_and(value = $1) FROM outbox", CONTENT)
    assert tuple(waiting) == (2, "codeagent.run.commands.v1", True)


async def test_one_is_discarded_with_a_reason_and_shows_nothing_any_more(
    edge: Edge, owner: Database, letter: str
) -> None:
    assert (await act(edge, f"{letter}/discard")).status_code == 422
    gone = await act(edge, f"{letter}/discard", reason="of a load test")
    assert (gone.status_code, gone.json()["state"], gone.json()["reason"]) == (200, "discarded", "of a load test")
    assert (await act(edge, f"{letter}/discard", '"2"', reason="twice")).json()["reason"] == "of a load test"
    for answer in (await get(edge, f"{letter}?include=value"), await act(edge, f"{letter}/redrive", '"2"')):
        assert (answer.status_code, answer.json()["code"]) == (409, "invalid_state_transition")
    assert await facts(owner) == [("dead_letter.discarded", "usr_operator")]


async def test_several_are_narrowed_down_and_listed_page_by_page_newest_first(
    edge: Edge, keeper: DeadLetterKeeper
) -> None:
    for number in range(3):
        await keeper(dead_letter(offset=number))
    await keeper(dead_letter(offset=3, error=ValueError("bug")))
    wanted = "error_type=invalid_payload&state=open&since=2026-01-01T00:00:00Z&topic=codeagent.run.commands.v1"
    ids, link = [], f"{PATH}?{wanted}&limit=2"
    while link:
        page = await get(edge, link)
        ids += [item["id"] for item in page.json()["items"]]
        link = page.headers.get("link", "").partition(">")[0].lstrip("<")
        assert bool(link) == (page.json()["next_cursor"] is not None)
    newest_first = [item["id"] for item in (await get(edge, PATH)).json()["items"]]
    assert ids == newest_first[1:]
    for nothing in ("state=discarded", "topic=another", "since=2999-01-01T00:00:00Z"):
        assert (await get(edge, f"{PATH}?{nothing}")).json() == {"items": [], "next_cursor": None}


async def test_only_operators_come_near(edge: Edge, letter: str) -> None:
    for method, path in (("GET", PATH), ("GET", letter), ("POST", f"{letter}/redrive"), ("POST", f"{letter}/discard")):
        answer = await edge.call(edge.keys.owner, method, path, json={"reason": "r"}, headers={"If-Match": "*"})
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


async def test_what_is_no_dead_letter_is_not_found(edge: Edge) -> None:
    for name in ("dlq_x", "%00", "dlq_00000000000000000000000000"):
        for answer in (await get(edge, f"{PATH}/{name}"), await act(edge, f"{PATH}/{name}/redrive")):
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
