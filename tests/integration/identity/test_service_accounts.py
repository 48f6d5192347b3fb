"""Programs that act in a tenant's name, with a secret instead of a password."""

from __future__ import annotations

from base64 import b64encode

import httpx2

from codeagent import clock
from tests.integration.identity.conftest import EMAIL, PASSWORD, World
from tests.integration.identity.oauth_client import OAuthClient

PATH = "/v1/service-accounts"


async def made(client: OAuthClient, scopes: list[str]) -> dict[str, str]:
    headers = {"Idempotency-Key": str(clock.new_uuid())}
    answer = await client.call("POST", PATH, json={"name": "nightly", "scopes": scopes}, headers=headers)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    found: dict[str, str] = answer.json()
    return found


async def test_a_repeat_makes_no_second_account_and_shows_no_secret(world: World) -> None:
    owner = await world.owner()
    body, headers = {"name": "nightly", "scopes": ["runs:read"]}, {"Idempotency-Key": "k"}
    first = await owner.call("POST", PATH, json=body, headers=headers)
    again = await owner.call("POST", PATH, json=body, headers=headers)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
    assert again.json() == {**first.json(), "client_secret": None}
    other = await owner.call("POST", PATH, json={**body, "name": "other"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    await owner.call("DELETE", f"{PATH}/{first.json()['id']}")
    gone = await owner.call("POST", PATH, json=body, headers=headers)
    assert (gone.status_code, gone.json()["code"]) == (409, "conflict")
    bare = await owner.call("POST", PATH, json=body)
    assert (bare.status_code, bare.json()["code"]) == (400, "idempotency_key_missing")


async def token(http: httpx2.AsyncClient, account: dict[str, str], **form: str) -> httpx2.Response:
    credentials = {"client_id": account["id"], "client_secret": account["client_secret"]}
    return await http.post("/oauth2/token", data={"grant_type": "client_credentials", **credentials, **form})


async def test_an_account_gets_tokens_that_do_what_it_may_do(world: World) -> None:
    owner = await world.owner()
    account = await made(owner, ["runs:read", "runs:write"])
    answer = await token(owner.http, account, scope="runs:read admin")
    assert answer.json()["scope"] == "runs:read"
    assert "refresh_token" not in answer.json()
    program = OAuthClient(owner.http, access=answer.json()["access_token"])
    me = (await program.get("/v1/me")).json()
    assert (me["id"], me["type"], me["scopes"]) == (account["id"], "service_account", ["runs:read"])
    assert (await program.get("/v1/runs")).status_code == 200
    assert (await program.get("/v1/auth/sessions")).json()["code"] == "forbidden"
    basic = b64encode(f"{account['id']}:{account['client_secret']}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}"}
    by_header = await owner.http.post("/oauth2/token", data={"grant_type": "client_credentials"}, headers=headers)
    assert by_header.json()["scope"] == "runs:read runs:write"


async def test_a_wrong_secret_and_an_unknown_account_are_answered_alike(world: World) -> None:
    owner = await world.owner()
    account = await made(owner, ["runs:read"])
    wrong = await token(owner.http, {**account, "client_secret": "cas_wrong"})
    unknown = await token(owner.http, {**account, "id": "sva_none"})
    assert (wrong.status_code, wrong.json()) == (unknown.status_code, unknown.json())
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
    assert wrong.headers["www-authenticate"].startswith("Basic")
    form = {"grant_type": "client_credentials", "client_secret": account["client_secret"]}
    for value in ("Basic !", f"Basic {b64encode(b'no colon').decode()}"):
        answer = await owner.http.post("/oauth2/token", data={"grant_type": "x"}, headers={"Authorization": value})
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    both = await owner.http.post("/oauth2/token", data=form, headers={"Authorization": "Basic YTpi"})
    assert (both.status_code, both.json()["error"]) == (400, "invalid_request")


async def test_a_disabled_account_gets_nothing_and_what_it_has_is_refused(world: World) -> None:
    owner = await world.owner()
    account = await made(owner, ["runs:read"])
    program = OAuthClient(owner.http, access=(await token(owner.http, account)).json()["access_token"])
    assert (await owner.call("DELETE", f"{PATH}/{account['id']}")).status_code == 204
    await world.edge.revocations.look()
    assert (await program.get("/v1/runs")).status_code == 401
    assert (await token(owner.http, account)).json()["error"] == "invalid_client"
    assert (await owner.get(f"{PATH}/{account['id']}")).json()["code"] == "not_found"
    assert (await owner.call("DELETE", f"{PATH}/{account['id']}")).json()["code"] == "not_found"
    facts = [event.type for event in await world.facts(f"service_account-{account['id']}")]
    assert facts == ["service_account.created", "service_account.disabled"]


async def test_one_token_can_be_taken_back_alone(world: World) -> None:
    owner = await world.owner()
    account = await made(owner, ["runs:read"])
    first, second = [
        OAuthClient(owner.http, access=(await token(owner.http, account)).json()["access_token"]) for _ in range(2)
    ]
    form = {"token": first.access, "client_id": account["id"], "client_secret": account["client_secret"]}
    assert (await owner.http.post("/oauth2/revoke", data=form)).status_code == 200
    await world.edge.revocations.look()
    assert [(await program.get("/v1/runs")).status_code for program in (first, second)] == [401, 200]


async def test_nobody_makes_an_account_that_may_more_than_they_do(world: World) -> None:
    client = world.client()
    await client.log_in(EMAIL, PASSWORD, scope="keys:write runs:read")
    key = {"Idempotency-Key": "k"}
    refused = await client.call("POST", PATH, json={"name": "n", "scopes": ["runs:read", "admin"]}, headers=key)
    assert (refused.status_code, refused.json()["code"]) == (422, "scope_not_held")
    assert (await client.call("POST", PATH, json={"name": "n", "scopes": []}, headers=key)).status_code == 422
    assert (
        await client.call("POST", PATH, json={"name": "n", "scopes": ["runs:read"]}, headers=key)
    ).status_code == 201


async def test_accounts_are_listed_page_by_page_without_their_secrets(world: World) -> None:
    owner = await world.owner()
    wanted = [(await made(owner, ["runs:read"]))["id"] for _ in range(3)]
    page = (await owner.get(f"{PATH}?limit=2")).json()
    rest = (await owner.get(f"{PATH}?limit=2&cursor={page['next_cursor']}")).json()
    assert [item["id"] for item in (*page["items"], *rest["items"])] == wanted[::-1]
    assert rest["next_cursor"] is None
    assert set(page["items"][0]) == {"id", "name", "scopes", "created_at"}
    one = await owner.get(f"{PATH}/{wanted[0]}")
    assert (one.status_code, one.json()["id"]) == (200, wanted[0])
