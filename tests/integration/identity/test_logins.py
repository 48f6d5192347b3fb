"""Logging in: from a password to a token, and what a stranger learns on the way, which is nothing."""

from __future__ import annotations

import asyncio

import pytest

from codeagent.identity.passwords import Passwords
from tests.integration.identity.conftest import EMAIL, ISSUER, PASSWORD, STRANGER_ADDRESS, TENANT, World
from tests.integration.opened import everything_said

WRONG = "not the password at all"


async def test_an_owner_logs_in_and_may_do_what_owners_do(world: World) -> None:
    client = world.client()
    answer = await client.log_in(EMAIL, PASSWORD)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("Bearer", 600)
    assert client.refresh.startswith("crt_")
    me = (await client.get("/v1/me")).json()
    assert (me["id"], me["tenant_id"], me["type"], me["role"]) == (world.user_id, TENANT, "app_user", "owner")
    assert (me["email"], me["password_change_required"]) == (EMAIL, False)
    assert "admin" in me["scopes"]
    assert (await client.get("/v1/runs")).status_code == 200


async def test_an_api_key_and_a_token_are_both_taken(world: World) -> None:
    client = await world.owner()
    shown = {"Authorization": f"Bearer {world.api_key}"}
    by_key = await client.http.get("/v1/me", headers=shown)
    assert (by_key.status_code, by_key.json()["type"]) == (200, "api_key")
    assert by_key.json()["email"] is None
    assert (await client.http.get("/v1/auth/sessions", headers=shown)).json()["code"] == "forbidden"


async def test_a_token_carries_what_was_asked_for_and_never_more_than_the_role(world: World) -> None:
    client = world.client()
    answer = await client.log_in(EMAIL, PASSWORD, scope="runs:read members:write")
    assert answer.json()["scope"] == "members:write runs:read"
    refused = await client.get("/v1/service-accounts")
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    assert 'error="insufficient_scope", scope="keys:write"' in refused.headers["www-authenticate"]
    await world.sql("UPDATE users SET role = 'viewer'")
    assert (await client.renew()).json()["scope"] == "runs:read"
    await world.sql("UPDATE users SET role = 'owner'")
    assert (await client.renew()).json()["scope"] == "members:write runs:read"


async def test_the_state_comes_back_with_the_issuer(world: World) -> None:
    answer = await world.client().authorize(EMAIL, PASSWORD, state="xyz")
    assert (answer.json()["state"], answer.json()["iss"]) == ("xyz", ISSUER)


async def test_a_login_that_is_not_one_is_refused_in_oauths_words(world: World) -> None:
    refusals: list[tuple[dict[str, str], int, str]] = [
        ({"client_id": "somebody"}, 401, "invalid_client"),
        ({"code_challenge": "short"}, 400, "invalid_request"),
        ({"code_challenge_method": "plain"}, 400, "invalid_request"),
        ({"response_type": "token"}, 400, "invalid_request"),
        ({"scope": "everything"}, 400, "invalid_scope"),
        ({"password": "x" * 257}, 400, "invalid_request"),
        ({"redirect_uri": "https://evil.example"}, 400, "invalid_request"),
    ]
    for change, status, error in refusals:
        answer = await world.client().authorize(EMAIL, PASSWORD, **change)
        assert (answer.status_code, answer.json()["error"]) == (status, error), change
        assert answer.headers["cache-control"] == "no-store"
        assert PASSWORD not in answer.text


async def test_a_wrong_password_and_an_unknown_account_are_answered_alike(world: World) -> None:
    client = world.client(address=STRANGER_ADDRESS)
    wrong, unknown = await client.authorize(EMAIL, WRONG), await client.authorize("nobody@example.org", WRONG)
    assert (wrong.status_code, wrong.json()) == (unknown.status_code, unknown.json()) == (400, wrong.json())
    assert wrong.json()["error"] == "access_denied"
    assert set(wrong.headers) == set(unknown.headers)


async def test_an_address_is_the_same_however_it_is_written(world: World) -> None:
    assert (await world.client().authorize(f" {EMAIL.upper()} ", PASSWORD)).status_code == 200


@pytest.mark.parametrize("email", [EMAIL, "nobody@example.org"])
async def test_failures_slow_down_whoever_makes_them_whether_the_account_exists_or_not(
    world: World, email: str
) -> None:
    client = world.client(address=STRANGER_ADDRESS)
    answers = [await client.authorize(email, WRONG) for _ in range(8)]
    assert [answer.status_code for answer in answers] == [400] * 6 + [429] * 2
    assert answers[-1].json()["error"] == "temporarily_unavailable"
    assert int(answers[-1].headers["retry-after"]) == 1
    assert (await client.authorize(email, PASSWORD)).status_code == 429
    elsewhere = world.client(address="192.0.2.1")
    assert (await elsewhere.authorize(email, WRONG)).status_code == 429


async def test_each_further_failure_doubles_the_wait_up_to_a_bound(world: World) -> None:
    client = world.client(address=STRANGER_ADDRESS)
    waits = []
    for _ in range(18):
        await world.sql("UPDATE login_throttles SET blocked_until = '-infinity'")
        await client.authorize(EMAIL, WRONG)
        [row] = await world.database.fetch(
            "SELECT max(extract(epoch FROM blocked_until - failed_at))::int AS wait FROM login_throttles "
            "WHERE failures < 20 AND isfinite(blocked_until)"
        )
        waits.append(row["wait"])
    assert waits == [None] * 5 + [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]


async def test_guesses_made_at_the_same_moment_count_as_well(world: World) -> None:
    client = world.client(address=STRANGER_ADDRESS)
    answers = await asyncio.gather(*(client.authorize(EMAIL, WRONG) for _ in range(20)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [400] * 6 + [429] * 14


async def test_strangers_who_guess_do_not_keep_the_owner_out_of_where_they_have_been_before(world: World) -> None:
    await world.owner()
    stranger = world.client(address=STRANGER_ADDRESS)
    for _ in range(7):
        await stranger.authorize(EMAIL, WRONG)
    assert (await world.client(address="192.0.2.1").authorize(EMAIL, PASSWORD)).status_code == 429
    assert (await world.client().authorize(EMAIL, PASSWORD)).status_code == 200


async def test_an_address_that_tries_many_accounts_is_slowed_down_too(world: World) -> None:
    client = world.client(address=STRANGER_ADDRESS)
    answers = [await client.authorize(f"user{number}@example.org", WRONG) for number in range(22)]
    assert [answer.status_code for answer in answers] == [400] * 21 + [429]
    assert (await world.client().authorize("user50@example.org", WRONG)).status_code == 400


async def test_success_clears_the_account_and_a_day_clears_everything(world: World) -> None:
    client = world.client()
    for _ in range(4):
        await client.authorize(EMAIL, WRONG)
    await world.owner()
    answers = [await client.authorize(EMAIL, WRONG) for _ in range(5)]
    assert {answer.status_code for answer in answers} == {400}
    await client.authorize(EMAIL, WRONG)
    assert (await client.authorize(EMAIL, PASSWORD)).status_code == 429
    await world.sql("UPDATE login_throttles SET failed_at = failed_at - interval '25 hours', blocked_until = now()")
    assert (await client.authorize(EMAIL, WRONG)).status_code == 400
    [row] = await world.database.fetch("SELECT max(failures) AS most FROM login_throttles")
    assert row["most"] == 1


async def test_nobody_of_a_suspended_or_disabled_account_comes_in_or_stays(world: World) -> None:
    client = await world.owner()
    await world.sql("UPDATE users SET disabled_at = now()")
    refused = await world.client().authorize(EMAIL, PASSWORD)
    assert (refused.json()["error"], "suspended" in refused.json()["error_description"]) == ("access_denied", True)
    assert "suspended" not in (await world.client().authorize(EMAIL, WRONG)).text
    assert (await client.renew()).json()["error"] == "invalid_grant"


async def test_a_hash_made_with_other_parameters_is_made_anew_at_the_next_login(world: World) -> None:
    strong = Passwords(time_cost=2, memory_kib=16, parallelism=1)
    await world.sql("UPDATE passwords SET hash = $1", await strong.hash(PASSWORD))
    await strong.close()
    await world.owner()
    [row] = await world.database.fetch("SELECT hash FROM passwords")
    assert "m=8,t=1,p=1" in row["hash"]
    await world.owner()


async def test_logins_and_failures_are_facts_without_an_address_in_them(world: World) -> None:
    client = await world.owner()
    await client.authorize(EMAIL, WRONG)
    await client.authorize("nobody@example.org", WRONG)
    assert await world.user_facts() == ["user.created", "auth.login.succeeded", "auth.login.failed"]
    everything = (await everything_said(world.database)).casefold()
    assert "lovelace" not in everything
    assert "198.51" not in everything
