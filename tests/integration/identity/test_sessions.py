"""A user's logins: seen, ended one by one or all together, and ended by a change of the password."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from codeagent.identity.keys import KeyRing
from codeagent.identity.sessions import forget_logins
from tests.integration.identity.conftest import EMAIL, OWNER_ADDRESS, PASSWORD, STRANGER_ADDRESS, World, make_edge
from tests.integration.identity.oauth_client import OAuthClient

NEW = "analytical engine 1837 x"


async def test_a_user_sees_the_logins_and_no_address_of_theirs(world: World) -> None:
    first = await world.owner("cli")
    second = await world.owner("console", STRANGER_ADDRESS)
    answer = await second.get("/v1/auth/sessions")
    items = answer.json()["items"]
    assert [(item["client_id"], item["current"]) for item in items] == [("console", True), ("cli", False)]
    assert all(item["id"].startswith("lgn_") for item in items)
    assert items[0]["network"] != items[1]["network"]
    assert STRANGER_ADDRESS not in answer.text
    assert items[0]["created_at"] <= items[0]["last_used_at"] < items[0]["expires_at"]
    page = (await first.get("/v1/auth/sessions?limit=1")).json()
    rest = (await first.get(f"/v1/auth/sessions?limit=1&cursor={page['next_cursor']}")).json()
    assert [item["id"] for item in (*page["items"], *rest["items"])] == [item["id"] for item in items]
    assert rest["next_cursor"] is None
    assert (await first.get("/v1/auth/sessions?cursor=x")).json()["code"] == "malformed_cursor"


async def test_an_ended_login_is_refused_with_its_refresh_token_and_its_access_token(world: World) -> None:
    here, there = await world.owner("cli"), await world.owner("console")
    [_, other] = [item["id"] for item in (await there.get("/v1/auth/sessions")).json()["items"]]
    assert (await there.call("DELETE", f"/v1/auth/sessions/{other}")).status_code == 204
    assert (await there.call("DELETE", f"/v1/auth/sessions/{other}")).json()["code"] == "not_found"
    assert (await here.renew()).json()["error"] == "invalid_grant"
    await world.edge.revocations.look()
    refused = await here.get("/v1/me")
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    assert (await there.get("/v1/me")).status_code == 200


async def test_a_colleague_sees_and_ends_their_own_logins_alone(world: World) -> None:
    owner, colleague = await world.owner(), await world.colleague()
    [mine] = (await owner.get("/v1/auth/sessions")).json()["items"]
    [theirs] = (await colleague.get("/v1/auth/sessions")).json()["items"]
    assert mine["id"] != theirs["id"]
    refused = await colleague.call("DELETE", f"/v1/auth/sessions/{mine['id']}")
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    assert (await colleague.call("DELETE", "/v1/auth/sessions")).status_code == 204
    assert (await owner.renew()).status_code == 200


async def test_a_logout_at_one_edge_holds_at_another_within_a_second(world: World) -> None:
    other = make_edge(world.edge.users.keys._database, KeyRing({}), world.folder)
    await other.revocations.start()
    client = await world.owner()
    there = OAuthClient(other.http(OWNER_ADDRESS), access=client.access)
    assert (await there.get("/v1/me")).status_code == 200
    assert (await client.call("POST", "/oauth2/logout")).status_code == 204
    async with asyncio.timeout(1.0):
        while (await there.get("/v1/me")).status_code != 401:
            await asyncio.sleep(0.01)
    await other.revocations.stop()
    await other.users.passwords.close()


async def test_logging_out_everywhere_ends_every_login_this_one_included(world: World) -> None:
    clients = [await world.owner("cli"), await world.owner("console")]
    pending = world.client()
    code = (await pending.authorize(EMAIL, PASSWORD)).json()["code"]
    assert (await clients[0].call("DELETE", "/v1/auth/sessions")).status_code == 204
    await world.edge.revocations.look()
    assert [(await client.get("/v1/me")).status_code for client in clients] == [401, 401]
    assert (await pending.redeem(code)).json()["error"] == "invalid_grant"
    [event] = [event for event in await world.facts(f"user-{world.user_id}") if event.type == "auth.sessions.revoked"]
    assert len(event.document()["session_ids"]) == 2


async def test_logout_and_revocation_end_the_session_and_tell_nothing(world: World) -> None:
    client = await world.owner()
    assert (await client.call("POST", "/oauth2/logout")).status_code == 204
    assert (await client.renew()).json()["error"] == "invalid_grant"
    for shown in ("refresh", "access"):
        client = await world.owner()
        form = {"token": getattr(client, shown), "client_id": "cli"}
        other = await client.http.post("/oauth2/revoke", data={**form, "client_id": "console"})
        assert (other.status_code, (await client.get("/v1/me")).status_code) == (200, 200)
        assert (await client.http.post("/oauth2/revoke", data=form)).status_code == 200
        assert (await client.renew()).json()["error"] == "invalid_grant"
        assert (await client.http.post("/oauth2/revoke", data=form)).status_code == 200
    unknown = await client.http.post("/oauth2/revoke", data={"token": "nonsense", "client_id": "cli"})
    assert (unknown.status_code, unknown.content) == (200, b"")
    nobody = await client.http.post("/oauth2/revoke", data={"token": "nonsense", "client_id": "else"})
    assert (nobody.status_code, nobody.json()["error"]) == (401, "invalid_client")


async def test_a_changed_password_ends_the_other_logins_and_keeps_this_one(world: World) -> None:
    here, there = await world.owner("cli"), await world.owner("console")
    body = {"current_password": PASSWORD, "new_password": NEW}
    assert (await here.call("POST", "/v1/auth/password", json=body)).status_code == 204
    await world.edge.revocations.look()
    assert [(await client.get("/v1/me")).status_code for client in (here, there)] == [200, 401]
    assert (await here.renew()).status_code == 200
    assert (await world.client().authorize(EMAIL, PASSWORD)).json()["error"] == "access_denied"
    assert (await world.client().authorize(EMAIL, NEW)).status_code == 200
    assert (await world.user_facts())[-3:] == [
        "auth.sessions.revoked",
        "auth.password.changed",
        "auth.login.failed",
    ]


async def test_a_password_is_changed_by_who_knows_it_into_one_that_is_hard_to_guess(world: World) -> None:
    client = await world.owner()

    async def change(current: str, new: str) -> tuple[int, str, str]:
        body = {"current_password": current, "new_password": new}
        answer = await client.call("POST", "/v1/auth/password", json=body)
        assert NEW not in answer.text
        return answer.status_code, answer.json()["code"], (answer.json().get("errors") or [{}])[0].get("pointer", "")

    assert await change("wrong", NEW) == (422, "wrong_password", "/current_password")
    for weak in ("short", "password1234", "ada.lovelace12", PASSWORD):
        assert await change(PASSWORD, weak) == (422, "weak_password", "/new_password"), weak
    for _ in range(6):
        await change("wrong", NEW)
    status, code, _ = await change(PASSWORD, NEW)
    assert (status, code) == (429, "quota_exceeded")


async def test_a_temporary_password_is_good_for_choosing_ones_own_and_nothing_else(world: World) -> None:
    await world.sql("UPDATE passwords SET temporary_until = now() + interval '1 hour'")
    client = world.client()
    answer = await client.log_in(EMAIL, PASSWORD)
    assert answer.json()["scope"] == ""
    assert (await client.get("/v1/me")).json()["password_change_required"] is True
    assert (await client.get("/v1/runs")).json()["code"] == "insufficient_scope"
    body = {"current_password": PASSWORD, "new_password": NEW}
    assert (await client.call("POST", "/v1/auth/password", json=body)).status_code == 204
    assert "runs:read" in (await client.renew()).json()["scope"]
    await world.sql("UPDATE passwords SET temporary_until = now() - interval '1 second'")
    refused = await world.client().authorize(EMAIL, NEW)
    assert refused.json()["error"] == "access_denied"
    assert "expired" in refused.json()["error_description"]


async def test_what_no_login_can_use_any_more_is_forgotten_and_nothing_else(world: World) -> None:
    client = await world.owner()
    await client.renew()
    assert await forget_logins(world.database, timedelta(days=7), 100) == 0
    await world.sql("UPDATE refresh_tokens SET used_at = used_at - interval '8 days' WHERE used_at IS NOT NULL")
    await world.sql("UPDATE authorization_codes SET expires_at = now() - interval '2 days'")
    assert await forget_logins(world.database, timedelta(days=7), 100) == 2
    assert (await client.renew()).status_code == 200
    await world.sql("UPDATE login_sessions SET expires_at = now() - interval '1 second'")
    assert await forget_logins(world.database, timedelta(days=7), 100) == 1
    [row] = await world.database.fetch("SELECT count(*) AS left FROM refresh_tokens")
    assert row["left"] == 0
