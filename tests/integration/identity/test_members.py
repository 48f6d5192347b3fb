"""Members of a tenant: added with a password for one use, and gone within a second when they are removed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

import httpx2
import pytest

from codeagent.encryption import SecretBox
from codeagent.subjects.keys import SubjectKeys
from codeagent.subjects.store import StoredKey
from tests.integration.identity.conftest import COLLEAGUE, EMAIL, PASSWORD, World
from tests.integration.identity.oauth_client import OAuthClient
from tests.integration.subject_keys import SHARED, KeysInMemory

NEW = {"email": "grace@example.org", "role": "developer"}


async def add(client: OAuthClient, body: dict[str, str] = NEW, repeat: str = "k1") -> httpx2.Response:
    return await client.call("POST", "/v1/members", json=body, headers={"Idempotency-Key": repeat})


async def member(client: OAuthClient, user_id: str) -> httpx2.Response:
    return await client.get(f"/v1/members/{user_id}")


async def change(client: OAuthClient, user_id: str, role: str) -> httpx2.Response:
    headers = {"If-Match": (await member(client, user_id)).headers["etag"]}
    return await client.call("PATCH", f"/v1/members/{user_id}", json={"role": role}, headers=headers)


async def remove(client: OAuthClient, user_id: str) -> httpx2.Response:
    headers = {"If-Match": (await member(client, user_id)).headers["etag"]}
    return await client.call("DELETE", f"/v1/members/{user_id}", headers=headers)


async def refused_soon(client: OAuthClient) -> None:
    async with asyncio.timeout(5):
        while (await client.get("/v1/me")).status_code != 401:
            await asyncio.sleep(0.02)


def said(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_a_member_is_added_with_a_password_that_serves_to_choose_another(world: World) -> None:
    owner = await world.owner()
    answer = await add(owner)
    made = answer.json()
    assert (answer.status_code, made["role"], made["email"]) == (201, "developer", NEW["email"])
    shown = (await member(owner, made["id"])).json()
    assert shown == {name: value for name, value in made.items() if name != "temporary_password"}
    client = world.client()
    (await client.log_in(NEW["email"], made["temporary_password"])).raise_for_status()
    assert (await client.get("/v1/me")).json()["password_change_required"] is True
    assert said(await client.get("/v1/runs")) == (403, "insufficient_scope")
    listed = (await owner.get("/v1/members")).json()["items"]
    assert {each["email"] for each in listed} == {EMAIL, NEW["email"]}
    facts = [event for event in await world.facts(f"user-{made['id']}") if event.type == "user.created"]
    assert facts[0].metadata["authid"] == world.user_id
    assert NEW["email"] not in str(facts[0].document())


async def test_a_repeat_adds_nobody_and_does_not_show_the_password_again(world: World) -> None:
    owner = await world.owner()
    first, again = await add(owner), await add(owner)
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    assert again.json()["temporary_password"] is None
    assert said(await add(owner, {**NEW, "role": "viewer"})) == (422, "idempotency_key_reused")
    assert said(await add(owner, NEW, "k2")) == (409, "conflict")
    assert said(await add(owner, {**NEW, "email": "nobody"}, "k3")) == (422, "validation_failed")


async def test_who_is_removed_is_out_within_a_second_and_their_address_is_free(world: World) -> None:
    owner = await world.owner()
    colleague = await world.colleague()
    user_id = (await colleague.get("/v1/me")).json()["id"]
    assert (await remove(owner, user_id)).status_code == 204
    await refused_soon(colleague)
    assert (await colleague.renew()).status_code == 400
    assert (await world.client().authorize(COLLEAGUE, PASSWORD)).status_code != 200
    assert said(await member(owner, user_id)) == (404, "not_found")
    types = [event.type for event in await world.facts(f"user-{user_id}")]
    assert types[-2:] == ["auth.sessions.revoked", "user.removed"]
    [row] = await world.database.fetch("SELECT email_digest, email_sealed FROM users WHERE id = $1", user_id)
    assert (row["email_digest"], row["email_sealed"]) == (None, None)
    back = await add(owner, {"email": COLLEAGUE, "role": "viewer"})
    assert back.status_code == 201
    assert back.json()["id"] != user_id


async def test_the_keys_of_who_is_removed_end(world: World) -> None:
    owner = await world.owner()
    colleague = await world.colleague()
    user_id = (await colleague.get("/v1/me")).json()["id"]
    await change(owner, user_id, "developer")
    (await colleague.renew()).raise_for_status()
    key = {"name": "k", "scopes": ["runs:read"]}
    made = await colleague.call("POST", "/v1/api-keys", json=key, headers={"Idempotency-Key": "k"})
    assert made.status_code == 201, made.text
    assert (await remove(owner, user_id)).status_code == 204
    [row] = await world.database.fetch("SELECT revoked_at FROM api_keys WHERE id = $1", made.json()["id"])
    assert row["revoked_at"] is not None


async def test_who_may_do_less_logs_in_again_and_who_may_do_more_need_not(world: World) -> None:
    owner = await world.owner()
    colleague = await world.colleague()
    user_id = (await colleague.get("/v1/me")).json()["id"]
    assert (await change(owner, user_id, "admin")).json()["role"] == "admin"
    (await colleague.renew()).raise_for_status()
    assert "admin" in (await colleague.get("/v1/me")).json()["scopes"]
    assert (await change(owner, user_id, "viewer")).status_code == 200
    await refused_soon(colleague)
    (await colleague.log_in(COLLEAGUE, PASSWORD)).raise_for_status()
    assert "admin" not in (await colleague.get("/v1/me")).json()["scopes"]
    roles = [e.document()["role"] for e in await world.facts(f"user-{user_id}") if e.type == "user.role_changed"]
    assert roles == ["admin", "viewer"]


async def test_a_tenant_keeps_an_owner(world: World) -> None:
    owner = await world.owner()
    colleague = await world.colleague()
    other = (await colleague.get("/v1/me")).json()["id"]
    assert said(await change(owner, world.user_id, "admin")) == (409, "last_owner")
    assert said(await remove(owner, world.user_id)) == (409, "last_owner")
    assert (await change(owner, other, "owner")).status_code == 200
    (await colleague.renew()).raise_for_status()
    answers = await asyncio.gather(remove(owner, other), remove(colleague, world.user_id))
    codes = sorted(answer.status_code for answer in answers)
    # Whoever comes so late that they are removed already is a stranger.
    assert codes in ([204, 409], [204, 401]), "two who remove each other leave one"


async def test_nobody_makes_or_unmakes_somebody_who_may_do_more(world: World) -> None:
    owner = await world.owner()
    colleague = await world.colleague()
    user_id = (await colleague.get("/v1/me")).json()["id"]
    assert said(await add(colleague)) == (403, "insufficient_scope")
    await change(owner, user_id, "admin")
    (await colleague.renew()).raise_for_status()
    assert said(await add(colleague, {**NEW, "role": "owner"})) == (403, "insufficient_scope")
    assert said(await change(colleague, user_id, "owner")) == (403, "insufficient_scope")
    assert said(await remove(colleague, world.user_id)) == (403, "insufficient_scope")
    assert (await add(colleague, {**NEW, "role": "admin"})).status_code == 201


async def test_a_change_names_the_version_it_was_decided_on(world: World) -> None:
    owner = await world.owner()
    user_id = (await (await world.colleague()).get("/v1/me")).json()["id"]
    path = f"/v1/members/{user_id}"
    assert said(await owner.call("DELETE", path)) == (428, "precondition_required")
    assert said(await owner.call("PATCH", path, json={"role": "admin"}, headers={"If-Match": '"0"'})) == (
        412,
        "version_mismatch",
    )


async def test_members_are_listed_page_by_page(world: World) -> None:
    owner = await world.owner()
    for number in range(3):
        await add(owner, {**NEW, "email": f"n{number}@example.org"}, f"k{number}")
    seen: list[Any] = []
    path = "/v1/members?limit=2"
    while path:
        page = await owner.get(path)
        seen += page.json()["items"]
        path = page.headers["link"].split(">")[0][1:] if "link" in page.headers else ""
    assert len({each["id"] for each in seen}) == len(seen) == 4
    assert said(await owner.get("/v1/members?cursor=x")) == (400, "malformed_cursor")


@pytest.mark.parametrize("role", ["owner", "admin", "developer", "viewer"])
async def test_a_role_says_what_it_permits_and_none_permits_to_operate(world: World, role: str) -> None:
    roles = (await (await world.owner()).get("/v1/roles")).json()["items"]
    [found] = [each for each in roles if each["name"] == role]
    assert "runs:read" in found["scopes"]
    assert "operator" not in found["scopes"]


async def test_an_address_is_one_users_however_it_is_spelt(world: World) -> None:
    owner = await world.owner()
    assert said(await add(owner, {"email": EMAIL.upper(), "role": "viewer"})) == (409, "conflict")


class CountedKeys(KeysInMemory):
    """Counts how often somebody looks, and for how many keys."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[int] = []

    async def fetch(self, key_ids: Collection[str]) -> Mapping[str, StoredKey]:
        self.looks.append(len(key_ids))
        return await super().fetch(key_ids)


async def test_the_keys_of_a_page_are_looked_up_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = await world.owner()
    for number in range(7):
        await add(owner, {**NEW, "email": f"member-{number}@example.org"}, f"k{number}")
    store = CountedKeys()
    store.kept = SHARED.kept
    walled = world.edge.users.keys._database
    monkeypatch.setattr(walled, "subjects", SubjectKeys(store, SecretBox({"test": bytes(range(32))})))
    listed = (await owner.get("/v1/members?limit=5")).json()["items"]
    assert (len(listed), all(each["email"] for each in listed)) == (5, True)
    assert store.looks == [5]
