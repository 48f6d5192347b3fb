"""Stored keys of providers over HTTP: added once, listed without the key, revoked on the version that was seen."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from codeagent.encryption import SecretBox, parse_keys
from codeagent.eventlog.database import Database
from codeagent.provider_registry.stored_keys import StoredCredentials
from tests.integration.edge.gateway import KEK, Edge, Keys, running_edge

SECRET = "MARKED-key-of-the-vendor"
PATH = "/v1/admin/providers/openai/credentials"


@pytest.fixture
async def edge(newest_database_url: str, tmp_path: Path, file_keys: Keys) -> AsyncIterator[Edge]:
    providers = tmp_path / "providers.json"
    providers.write_text(json.dumps([{"name": "openai", "kind": "openai", "models": ["gpt-5"]}]))
    async with running_edge(newest_database_url, tmp_path, file_keys, providers_file=providers) as running:
        yield running


async def add(edge: Edge, key: str = "k", path: str = PATH, **body: Any) -> httpx2.Response:
    wanted = {"label": "November", "secret": SECRET, **body}
    return await edge.call(edge.keys.operator, "POST", path, json=wanted, headers={"Idempotency-Key": key})


async def test_a_key_is_stored_for_workers_and_shown_to_nobody(edge: Edge, newest_database_url: str) -> None:
    made = await add(edge)
    assert (made.status_code, made.headers["etag"], made.headers["cache-control"]) == (201, '"1"', "no-store")
    stored = made.json()
    assert made.headers["location"] == f"{PATH}/{stored['id']}"
    assert (stored["provider"], stored["label"], stored["state"]) == ("openai", "November", "active")
    assert (stored["created_by"], stored["last_used_at"]) == ("usr_operator", None)
    one = await edge.call(edge.keys.operator, "GET", f"{PATH}/{stored['id']}")
    listed = await edge.call(edge.keys.operator, "GET", PATH)
    assert one.json() == stored == listed.json()["items"][0]
    for answer in (made, one, listed):
        assert "MARKED" not in f"{answer.headers}{answer.text}"
    owner = Database(newest_database_url, connections=1)
    worker = StoredCredentials(owner, SecretBox(parse_keys([KEK])))
    await worker.look()
    assert [(key.text, key.credential_id) for key in worker.active("openai")] == [(SECRET, stored["id"])]
    await owner.close()


async def test_a_repeat_stores_nothing_and_another_key_under_its_name_is_refused(edge: Edge) -> None:
    made, again = await add(edge), await add(edge)
    assert (again.status_code, again.headers["idempotent-replayed"], again.json()) == (200, "true", made.json())
    for other in ({"secret": "another"}, {"label": "December"}):
        refused = await add(edge, **other)
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    without = await edge.call(edge.keys.operator, "POST", PATH, json={"label": "l", "secret": "s"})
    assert (without.status_code, without.json()["code"]) == (400, "idempotency_key_missing")


async def test_several_are_listed_page_by_page_newest_first(edge: Edge) -> None:
    ids = [(await add(edge, key=f"k{number}")).json()["id"] for number in range(3)]
    page = (await edge.call(edge.keys.operator, "GET", f"{PATH}?limit=2")).json()
    rest = await edge.call(edge.keys.operator, "GET", f"{PATH}?limit=2&cursor={page['next_cursor']}")
    assert [each["id"] for each in (*page["items"], *rest.json()["items"])] == ids[::-1]
    assert rest.json()["next_cursor"] is None


async def test_revoking_takes_the_version_that_was_seen_and_is_for_good(edge: Edge) -> None:
    path = f"{PATH}/{(await add(edge)).json()['id']}"
    for headers, status in (({}, 428), ({"If-Match": '"7"'}, 412), ({"If-Match": '"1"'}, 204)):
        answer = await edge.call(edge.keys.operator, "DELETE", path, headers=headers)
        assert answer.status_code == status
    gone = (await edge.call(edge.keys.operator, "GET", path)).json()
    assert (gone["state"], gone["version"]) == ("revoked", 2)
    assert gone["revoked_at"] is not None
    assert (await edge.call(edge.keys.operator, "DELETE", path, headers={"If-Match": '"2"'})).status_code == 204


async def test_a_stored_key_counts_as_configured_until_it_is_revoked(edge: Edge) -> None:
    async def configured() -> bool:
        shown = (await edge.call(edge.keys.owner, "GET", "/v1/providers")).json()["items"]
        return next(bool(item["key_configured"]) for item in shown if item["name"] == "openai")

    assert not await configured()
    path = f"{PATH}/{(await add(edge)).json()['id']}"
    assert await configured()
    await edge.call(edge.keys.operator, "DELETE", path, headers={"If-Match": "*"})
    assert not await configured()


@pytest.mark.parametrize("provider", ["nobody", "builtin", "%00", "Two%20words"])
async def test_what_is_no_provider_has_no_keys(edge: Edge, provider: str) -> None:
    path = f"/v1/admin/providers/{provider}/credentials"
    assert (await add(edge, path=path)).status_code == 404
    assert (await edge.call(edge.keys.operator, "GET", path)).status_code == 404
    elsewhere = f"{path}/{(await add(edge)).json()['id']}"
    assert (await edge.call(edge.keys.operator, "GET", elsewhere)).status_code == 404


@pytest.mark.parametrize("secret", ["", "MARKED words", "MARKED\n", "MARKED\u00e9", "MARKED" * 2_000])
async def test_what_can_be_no_key_is_refused_without_repeating_it(edge: Edge, secret: str) -> None:
    answer = await add(edge, secret=secret)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert "MARKED" not in answer.text


async def test_only_operators_come_near(edge: Edge) -> None:
    path = f"{PATH}/{(await add(edge)).json()['id']}"
    for method, where in (("GET", PATH), ("POST", PATH), ("GET", path), ("DELETE", path)):
        answer = await edge.call(edge.keys.owner, method, where, json={}, headers={"If-Match": "*"})
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
