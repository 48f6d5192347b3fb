"""API keys over HTTP: shown once, never more than their maker, and worth nothing once they have ended."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from codeagent import clock
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import leaf_of
from codeagent.identity.api_keys import KeyOrder
from codeagent.identity.keys import digest_of_key, well_formed
from codeagent.identity.scopes import Scope
from codeagent.messages.ids import api_key_stream, typed_id
from tests.integration.edge.gateway import MINE, Edge, Keys, running_edge
from tests.integration.opened import everything_said

BODY = {"name": "CI", "scopes": ["runs:read", "runs:write"]}


async def post(edge: Edge, maker: str, body: dict[str, Any], repeat: str | None = "k1") -> httpx2.Response:
    headers = {} if repeat is None else {"Idempotency-Key": repeat}
    return await edge.call(maker, "POST", "/v1/api-keys", json=body, headers=headers)


def refused(answer: httpx2.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


def in_days(days: float) -> str:
    return (clock.now() + timedelta(days=days)).isoformat()


async def test_a_key_is_shown_once_works_at_once_and_is_kept_as_a_digest(edge: Edge, newest_database_url: str) -> None:
    answer = await post(edge, edge.keys.owner, BODY)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    made = answer.json()
    assert well_formed(made["key"])
    assert await edge.accepts(made["key"])
    days = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert abs(days - timedelta(days=90)) < timedelta(minutes=1)
    seen = await edge.call(edge.keys.owner, "GET", answer.headers["location"])
    assert seen.json() == {name: value for name, value in made.items() if name != "key"}
    assert seen.headers["etag"] == answer.headers["etag"] == '"1"'
    owner = Database(newest_database_url, connections=1)
    dump = str(await owner.fetch("SELECT api_keys::text FROM api_keys")) + await everything_said(owner)
    await owner.close()
    assert made["id"] in dump
    assert made["key"][10:] not in dump


async def test_a_key_is_a_fact_of_its_own_stream_and_so_is_all_that_happens_to_it(
    edge: Edge, newest_database_url: str
) -> None:
    made = await edge.make_key(edge.keys.owner, scopes=["runs:read"], networks=["127.0.0.0/8"])
    path = f"/v1/api-keys/{made['id']}"
    rotated = await edge.call(edge.keys.owner, "POST", f"{path}/rotate", headers={"If-Match": '"1"'})
    await edge.call(edge.keys.owner, "DELETE", path, headers={"If-Match": '"2"'})
    owner = Database(newest_database_url, connections=1)
    log = EventLog(owner)
    events = await log.read_stream(api_key_stream(made["id"]))
    [successor] = await log.read_stream(api_key_stream(rotated.json()["id"]))
    await owner.close()
    assert [event.type for event in events] == ["api_key.created", "api_key.rotated", "api_key.revoked"]
    assert all(event.leaf_hash == leaf_of(event) for event in events)
    assert events[0].document()["networks"] == ["127.0.0.0/8"]
    assert events[1].document()["successor"] == rotated.json()["id"]
    assert successor.document()["replaces"] == made["id"]
    envelope = events[1].envelope()
    assert (envelope.actor_type, envelope.actor_id) == ("api_key", "usr_owner")
    assert str(envelope.correlation_id) == rotated.headers["x-request-id"] == str(successor.envelope().correlation_id)


async def test_a_repeat_makes_no_second_key_and_does_not_show_the_first_again(edge: Edge) -> None:
    answers = await asyncio.gather(*(post(edge, edge.keys.owner, BODY) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 201]
    repeats = [answer for answer in answers if answer.status_code == 200]
    assert {answer.headers["idempotent-replayed"] for answer in repeats} == {"true"}
    assert {answer.json()["key"] for answer in repeats} == {None}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert refused(await post(edge, edge.keys.owner, {**BODY, "name": "other"})) == (422, "idempotency_key_reused")
    assert refused(await post(edge, edge.keys.owner, BODY, None)) == (400, "idempotency_key_missing")
    reordered = {"scopes": ["runs:write", "runs:read"], "name": "CI"}
    assert (await post(edge, edge.keys.owner, reordered)).status_code == 200
    # What another one calls by the same name is another key.
    assert (await post(edge, edge.keys.developer, BODY)).status_code == 201


async def test_a_key_may_do_no_more_than_its_maker(edge: Edge) -> None:
    assert refused(await post(edge, edge.keys.developer, {**BODY, "scopes": ["admin"]})) == (403, "insufficient_scope")
    narrow = (await edge.make_key(edge.keys.developer, scopes=["keys:write"]))["key"]
    assert refused(await post(edge, narrow, BODY)) == (403, "insufficient_scope")
    assert refused(await edge.call(narrow, "GET", "/v1/runs")) == (403, "insufficient_scope")
    reader = (await edge.make_key(edge.keys.developer, scopes=["runs:read"]))["key"]
    assert refused(await edge.call(reader, "GET", "/v1/api-keys")) == (403, "insufficient_scope")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("expires_at", in_days(-1)),
        ("expires_at", in_days(366)),
        ("expires_at", "2027-01-01T00:00:00"),
        ("scopes", []),
        ("scopes", ["runs:everything"]),
        ("networks", ["10.0.0.1/8"]),
        ("networks", ["nowhere"]),
        ("name", ""),
        ("name", "a\u0000b"),
        ("digest", "00"),
    ],
    ids=["past", "far", "no zone", "no scope", "unknown", "host bits", "no network", "no name", "NUL", "no field"],
)
async def test_what_cannot_be_a_key_is_refused_and_named(edge: Edge, field: str, value: object) -> None:
    answer = await post(edge, edge.keys.owner, {**BODY, field: value})
    assert refused(answer) == (422, "validation_failed")
    assert field in answer.json()["errors"][0]["pointer"]


async def test_a_key_ends_when_it_was_said_to(edge: Edge) -> None:
    made = await edge.make_key(edge.keys.owner, expires_at=(clock.now() + timedelta(seconds=1.5)).isoformat())
    assert await edge.accepts(made["key"])
    async with asyncio.timeout(20):
        while await edge.accepts(made["key"]):
            await asyncio.sleep(0.05)
    assert clock.now() >= datetime.fromisoformat(made["expires_at"])
    seen = await edge.call(edge.keys.owner, "GET", f"/v1/api-keys/{made['id']}")
    assert seen.json()["status"] == "expired"


async def test_a_change_names_the_version_it_was_decided_on(edge: Edge) -> None:
    path = f"/v1/api-keys/{(await edge.make_key(edge.keys.owner))['id']}"
    for method, target in (("DELETE", path), ("POST", f"{path}/rotate")):
        bare = await edge.call(edge.keys.owner, method, target)
        assert refused(bare) == (428, "precondition_required")
        stale = await edge.call(edge.keys.owner, method, target, headers={"If-Match": '"7"'})
        assert refused(stale) == (412, "version_mismatch")
    both = await asyncio.gather(
        *(edge.call(edge.keys.owner, "POST", f"{path}/rotate", headers={"If-Match": '"1"'}) for _ in range(2))
    )
    assert sorted(answer.status_code for answer in both) == [201, 412]


async def test_a_revoked_key_is_refused_and_revoking_it_again_changes_nothing(edge: Edge) -> None:
    made = await edge.make_key(edge.keys.owner)
    assert await edge.accepts(made["key"])
    assert (await edge.revoke(edge.keys.owner, made["id"])).status_code == 204
    async with asyncio.timeout(10):
        while await edge.accepts(made["key"]):
            await asyncio.sleep(0.01)
    assert (await edge.revoke(edge.keys.owner, made["id"])).status_code == 204
    seen = (await edge.call(edge.keys.owner, "GET", f"/v1/api-keys/{made['id']}")).json()
    assert (seen["status"], seen["version"]) == ("revoked", 2)


async def test_the_keys_of_a_service_account_end_with_it(edge: Edge) -> None:
    wanted = {"name": "CI", "scopes": ["runs:read"]}
    key = {"Idempotency-Key": "k"}
    there = await edge.call(edge.keys.owner, "POST", "/v1/service-accounts", json=wanted, headers=key)
    account = there.json()["id"]
    author = Author(MINE, "system", "operator", clock.new_uuid())
    order = KeyOrder(typed_id("key", clock.new_uuid()), account, "CI", frozenset({Scope.RUNS_READ}))
    made = await edge.identity.keys.create(author, order)
    assert made.secret is not None
    assert await edge.accepts(made.secret)
    path = f"/v1/service-accounts/{account}"
    assert (await edge.call(edge.keys.owner, "DELETE", path, headers={"If-Match": "*"})).status_code == 204
    async with asyncio.timeout(10):
        while await edge.accepts(made.secret):
            await asyncio.sleep(0.01)
    seen = await edge.call(edge.keys.owner, "GET", f"/v1/api-keys/{made.key.id}")
    assert seen.json()["status"] == "revoked"


async def rotate(edge: Edge, key: dict[str, Any], **body: Any) -> httpx2.Response:
    path = f"/v1/api-keys/{key['id']}/rotate"
    return await edge.call(edge.keys.owner, "POST", path, json=body, headers={"If-Match": f'"{key["version"]}"'})


async def test_a_rotated_key_works_beside_its_successor_for_the_overlap(edge: Edge) -> None:
    old = await edge.make_key(edge.keys.owner, scopes=["runs:read"], name="deploy")
    assert await edge.accepts(old["key"])
    new = (await rotate(edge, old, overlap_seconds=2)).json()
    assert (new["name"], new["scopes"], new["replaces"]) == ("deploy", ["runs:read"], old["id"])
    assert await edge.accepts(old["key"])
    assert await edge.accepts(new["key"])
    seen = (await edge.call(edge.keys.owner, "GET", f"/v1/api-keys/{old['id']}")).json()
    assert (seen["status"], seen["replaced_by"]) == ("rotated", new["id"])
    assert refused(await rotate(edge, seen)) == (409, "invalid_state_transition")
    async with asyncio.timeout(20):
        while await edge.accepts(old["key"]):
            await asyncio.sleep(0.05)
    assert clock.now() >= datetime.fromisoformat(seen["expires_at"])
    assert await edge.accepts(new["key"])


async def test_a_key_that_is_rotated_without_overlap_has_ended(edge: Edge) -> None:
    old = await edge.make_key(edge.keys.owner)
    assert await edge.accepts(old["key"])
    assert (await rotate(edge, old, overlap_seconds=0)).status_code == 201
    async with asyncio.timeout(10):
        while await edge.accepts(old["key"]):
            await asyncio.sleep(0.01)


async def test_one_sees_ones_own_keys_and_an_administrator_all_but_becomes_nobody_else(edge: Edge) -> None:
    mine = await edge.make_key(edge.keys.developer)
    owners = await edge.make_key(edge.keys.owner)
    seen = await edge.call(edge.keys.developer, "GET", "/v1/api-keys")
    assert [item["id"] for item in seen.json()["items"]] == [mine["id"]]
    hidden = await edge.call(edge.keys.developer, "GET", f"/v1/api-keys/{owners['id']}")
    assert refused(hidden) == (404, "not_found")
    everything = await edge.call(edge.keys.owner, "GET", "/v1/api-keys")
    assert [item["id"] for item in everything.json()["items"]] == [owners["id"], mine["id"]]
    assert refused(await rotate(edge, mine)) == (403, "forbidden")
    assert (await edge.revoke(edge.keys.owner, mine["id"])).status_code == 204


async def test_the_list_has_pages_and_no_keys(edge: Edge) -> None:
    made = [await edge.make_key(edge.keys.owner, name=f"key {number}") for number in range(5)]
    found: list[str] = []
    path = "/v1/api-keys?limit=2"
    while path:
        page = await edge.call(edge.keys.owner, "GET", path)
        assert all("key" not in item for item in page.json()["items"])
        found += [item["id"] for item in page.json()["items"]]
        path = page.headers.get("link", "").partition(">")[0].removeprefix("<")
    assert found == [key["id"] for key in reversed(made)]
    for cursor in ("x", "5~", "zz~" + made[0]["id"], "f" * 60 + "~" + made[0]["id"]):
        assert refused(await edge.call(edge.keys.owner, "GET", f"/v1/api-keys?cursor={cursor}")) == (
            400,
            "malformed_cursor",
        )


async def test_a_key_bound_to_networks_is_refused_from_elsewhere(edge: Edge) -> None:
    elsewhere = await edge.make_key(edge.keys.owner, networks=["203.0.113.0/24", "2001:db8::/32"])
    assert refused(await edge.call(elsewhere["key"], "GET", "/v1/runs")) == (403, "forbidden")
    here = await edge.make_key(edge.keys.owner, networks=["203.0.113.0/24", "127.0.0.0/8"])
    assert await edge.accepts(here["key"])


async def test_uses_cost_no_query_once_a_key_is_known_and_the_last_one_is_told(
    newest_database_url: str, tmp_path: Path, file_keys: Keys
) -> None:
    async with running_edge(newest_database_url, tmp_path, file_keys) as edge:
        made = await edge.make_key(file_keys.owner)
        assert made["last_used_at"] is None
        before = clock.now()
        assert await edge.accepts(made["key"])
        edge.database.queries.clear()
        assert all(await asyncio.gather(*(edge.accepts(made["key"]) for _ in range(20))))
        assert not [query for query in edge.database.queries if "api_keys" in query]
    async with running_edge(newest_database_url, tmp_path, file_keys) as edge:
        seen = await edge.call(file_keys.owner, "GET", f"/v1/api-keys/{made['id']}")
    assert before <= datetime.fromisoformat(seen.json()["last_used_at"]) <= clock.now()


async def test_a_pepper_makes_keys_of_another_one_worthless_until_both_are_given(
    newest_database_url: str, tmp_path: Path, file_keys: Keys
) -> None:
    old, new = "o" * 32, "n" * 32
    async with running_edge(newest_database_url, tmp_path, file_keys, api_key_pepper=old) as edge:
        made = await edge.make_key(file_keys.owner)
        assert await edge.accepts(made["key"])
    for pepper, accepted in ((new, False), (f"{new},{old}", True)):
        async with running_edge(newest_database_url, tmp_path, file_keys, api_key_pepper=pepper) as edge:
            assert await edge.accepts(made["key"]) is accepted


async def test_neither_keys_nor_their_digests_are_logged(
    newest_database_url: str, tmp_path: Path, file_keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even before the log blanks what looks like a key."""
    caplog.set_level("DEBUG")
    with capture_logs() as logged:
        async with running_edge(newest_database_url, tmp_path, file_keys) as edge:
            made = await edge.make_key(file_keys.owner, networks=["203.0.113.0/24"])
            await edge.call(made["key"], "GET", "/v1/runs")
            await rotate(edge, made)
            await edge.revoke(file_keys.owner, made["id"])
    assert "credential.used_from_elsewhere" in [line["event"] for line in logged]
    lines = f"{logged}{caplog.text}"
    assert made["key"] not in lines
    assert digest_of_key(made["key"]) not in lines


async def test_without_a_database_a_key_that_was_not_seen_before_is_neither_accepted_nor_refused(
    newest_database_url: str, tmp_path: Path, file_keys: Keys
) -> None:
    async with running_edge(newest_database_url, tmp_path, file_keys) as edge:
        made = await edge.make_key(file_keys.owner)
        edge.database.url = "postgresql://nobody:x@127.0.0.1:1/none"
        await edge.database.close()
        answer = await edge.call(made["key"], "GET", "/v1/runs")
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
