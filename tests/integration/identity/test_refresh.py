"""Refresh tokens: good for one use, forgiving of a lost answer, and the end of their family when two hold it."""

from __future__ import annotations

import asyncio

import pytest

from codeagent.telemetry import metrics
from tests.integration.identity.conftest import EMAIL, OWNER_ADDRESS, PASSWORD, STRANGER_ADDRESS, World
from tests.integration.identity.oauth_client import OAuthClient

LATER = "UPDATE refresh_tokens SET used_at = used_at - interval '11 seconds' WHERE used_at IS NOT NULL"


async def test_each_use_gives_another_token_and_what_follows_is_known_to_nobody_else(world: World) -> None:
    client = await world.owner()
    seen = [client.refresh]
    for _ in range(3):
        answer = await client.renew()
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        seen.append(client.refresh)
    assert len(set(seen)) == 4
    assert (await client.get("/v1/me")).status_code == 200
    rows = await world.database.fetch(
        "SELECT encode(digest, 'hex') || coalesce(encode(salt, 'hex'), '') AS text FROM refresh_tokens"
    )
    assert len(rows) == 4
    assert not any(token in row["text"] for token in seen for row in rows)


async def test_a_lost_answer_logs_nobody_out(world: World) -> None:
    client = await world.owner()
    first = client.refresh
    lost = (await client.renew()).json()["refresh_token"]
    again = (await client.renew(first)).json()["refresh_token"]
    assert again == lost
    assert (await client.renew(again)).status_code == 200


async def test_two_refreshes_at_the_same_moment_get_the_same_successor(world: World) -> None:
    client = await world.owner()
    token = client.refresh
    answers = await asyncio.gather(*(client.renew(token) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1
    assert (await client.renew()).status_code == 200


async def stolen_late(world: World, client: OAuthClient) -> OAuthClient:
    """A token used eleven seconds ago comes again."""
    await client.renew()
    await world.sql(LATER)
    return client


async def stolen_elsewhere(world: World, client: OAuthClient) -> OAuthClient:
    """A token used this moment comes again from another network."""
    await client.renew()
    return world.client(address=STRANGER_ADDRESS)


async def stolen_and_used(world: World, client: OAuthClient) -> OAuthClient:
    """A token comes again whose successor has been used already."""
    await client.renew()
    await client.renew()
    return client


@pytest.mark.parametrize("theft", [stolen_late, stolen_elsewhere, stolen_and_used])
async def test_a_token_that_two_hold_ends_its_family_and_no_other(world: World, theft) -> None:  # type: ignore[no-untyped-def]
    client, other = await world.owner(), await world.owner("console")
    old = client.refresh
    thief: OAuthClient = await theft(world, client)
    before = metrics.REFRESH_REUSE._value.get()
    answer = await thief.renew(old)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert metrics.REFRESH_REUSE._value.get() == before + 1
    assert (await client.renew()).json()["error"] == "invalid_grant"
    assert (await other.renew()).status_code == 200
    assert await world.user_facts() == [
        "user.created",
        *["auth.login.succeeded"] * 2,
        "auth.sessions.revoked",
        "auth.refresh.reuse_detected",
    ]
    await world.edge.revocations.look()
    assert (await client.get("/v1/me")).status_code == 401
    # The family has ended: what comes again now is no news.
    await thief.renew(old)
    assert len(await world.user_facts()) == 5


async def test_a_token_is_good_for_the_client_it_was_given_to(world: World) -> None:
    client = await world.owner("cli")
    other = OAuthClient(world.edge.http(OWNER_ADDRESS), "console")
    assert (await other.renew(client.refresh)).json()["error"] == "invalid_grant"
    assert (await client.renew()).status_code == 200


async def test_a_session_ends_a_week_after_its_last_use_and_a_month_after_its_login(world: World) -> None:
    changes = {
        "last_used_at = now() - interval '6 days 23 hours'": 200,
        "last_used_at = now() - interval '7 days 1 minute'": 400,
        "last_used_at = now(), expires_at = now() + interval '1 minute'": 200,
        "expires_at = now() - interval '1 second'": 400,
    }
    client = await world.owner()
    [row] = await world.database.fetch("SELECT expires_at - created_at AS lives FROM login_sessions")
    assert abs(row["lives"].total_seconds() - 30 * 86_400) < 5
    for change, status in changes.items():
        await world.sql(f"UPDATE login_sessions SET {change}")
        assert (await client.renew()).status_code == status, change


async def test_a_code_is_good_once_for_its_client_and_its_verifier_within_a_minute(world: World) -> None:
    client = world.client()
    code = (await client.authorize(EMAIL, PASSWORD)).json()["code"]
    other = OAuthClient(client.http, "console", client.verifier)
    assert (await other.redeem(code)).json()["error"] == "invalid_grant"
    assert (await client.redeem(code, "v" * 43)).json()["error"] == "invalid_grant"
    opened = await client.redeem(code)
    assert opened.status_code == 200
    assert (await client.redeem(code)).json()["error"] == "invalid_grant"
    # Whoever had the code twice: the session it opened has ended.
    assert (await client.renew(opened.json()["refresh_token"])).json()["error"] == "invalid_grant"
    late = (await client.authorize(EMAIL, PASSWORD)).json()["code"]
    await world.sql("UPDATE authorization_codes SET expires_at = now() - interval '1 second'")
    assert (await client.redeem(late)).json()["error"] == "invalid_grant"


async def test_a_code_redeemed_many_times_at_once_opens_one_session_at_most(world: World) -> None:
    client = world.client()
    code = (await client.authorize(EMAIL, PASSWORD)).json()["code"]
    answers = await asyncio.gather(*(client.redeem(code) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400, 400]
    [row] = await world.database.fetch("SELECT count(*) AS opened FROM login_sessions")
    assert row["opened"] == 1


async def test_a_token_request_that_is_not_one_is_refused_in_oauths_words(world: World) -> None:
    client = await world.owner()
    refusals: list[tuple[object, int, str]] = [
        ({}, 400, "invalid_request"),
        ({"grant_type": "refresh_token"}, 400, "invalid_request"),
        ({"grant_type": "refresh_token", "client_id": "cli"}, 400, "invalid_request"),
        ({"grant_type": "refresh_token", "client_id": "else", "refresh_token": client.refresh}, 401, "invalid_client"),
        ({"grant_type": "password", "client_id": "cli", "username": EMAIL}, 400, "unsupported_grant_type"),
        ({"grant_type": "authorization_code", "client_id": "cli", "code": "cac_x"}, 400, "invalid_request"),
        ({"grant_type": "refresh_token", "client_id": "cli", "refresh_token": "crt_x"}, 400, "invalid_grant"),
        ({"grant_type": ["refresh_token", "password"], "client_id": "cli"}, 400, "invalid_request"),
        ({"grant_type": "client_credentials", "client_id": "cli"}, 401, "invalid_client"),
    ]
    for form, status, error in refusals:
        answer = await client.http.post("/oauth2/token", data=form)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["error"]) == (status, error), form
        assert answer.headers["cache-control"] == "no-store"
        assert ("www-authenticate" in answer.headers) == (status == 401)
    as_json = await client.http.post("/oauth2/token", json={"grant_type": "refresh_token"})
    assert (as_json.status_code, as_json.json()["error"]) == (400, "invalid_request")


async def test_strange_bytes_are_refused_as_what_they_are_and_break_nothing(world: World) -> None:
    client = await world.owner()
    http, nul = client.http, "sva_\x00"
    machine = {"grant_type": "client_credentials", "client_secret": "s"}
    strange = "Basic \u00ff".encode("latin-1")
    answers = {
        "NUL as a client": await http.post("/oauth2/token", data={**machine, "client_id": nul}),
        "NUL as a token": await http.post("/oauth2/revoke", data={"token": "\x00", "client_id": "cli"}),
        "NUL as an address": await client.authorize("\x00@example.org", PASSWORD),
        "NUL as a session": await client.call("DELETE", "/v1/auth/sessions/%00"),
        "NUL as an account": await client.call("DELETE", "/v1/service-accounts/%00"),
        "NUL as another": await client.get("/v1/service-accounts/%00"),
        "no ASCII in the header": await http.post(
            "/oauth2/token", data={"grant_type": "client_credentials"}, headers={b"Authorization": strange}
        ),
        "a form that is none": await http.post(
            "/oauth2/token", content=b"x", headers={"Content-Type": "multipart/form-data; boundary=y"}
        ),
        "a parameter twice": await http.post(
            "/oauth2/token", files=[("grant_type", (None, "a")), ("grant_type", (None, "b"))]
        ),
    }
    statuses = {name: answer.status_code for name, answer in answers.items()}
    assert statuses == {
        "NUL as a client": 401,
        "NUL as a token": 200,
        "NUL as an address": 400,
        "NUL as a session": 404,
        "NUL as an account": 404,
        "NUL as another": 404,
        "no ASCII in the header": 401,
        "a form that is none": 400,
        "a parameter twice": 400,
    }
    assert answers["a form that is none"].json()["error"] == "invalid_request"
