"""Whom the way in refuses although it knows them: the audit is told, of strangers it is not."""

from __future__ import annotations

from codeagent.identity.refusals import Refusal
from tests.integration.identity.conftest import EMAIL, PASSWORD, STRANGER_ADDRESS, TENANT, World


async def test_a_login_that_comes_too_soon_is_noted_where_there_is_such_an_account(world: World) -> None:
    client = world.client(address=STRANGER_ADDRESS)
    for email in (EMAIL, "nobody@example.org"):
        await client.authorize(email, "wrong, and long enough")
        await world.sql("UPDATE login_throttles SET blocked_until = clock_timestamp() + interval '1 hour'")
        assert (await client.authorize(email, PASSWORD)).status_code == 429
    refusal = Refusal(TENANT, "app_user", world.user_id, world.user_id, "login_throttled")
    assert world.edge.refused == [(refusal, STRANGER_ADDRESS)]
    assert PASSWORD not in str(world.edge.refused)


async def test_a_wrong_secret_is_noted_where_there_is_such_a_service_account(world: World) -> None:
    owner = await world.owner()
    wanted = {"name": "robot", "scopes": ["runs:read"]}
    headers = {"Idempotency-Key": "k"}
    account = (await owner.call("POST", "/v1/service-accounts", json=wanted, headers=headers)).json()["id"]
    unknown = f"{account[:-1]}{'0' if account[-1] != '0' else '1'}"
    for client_id in (account, unknown, "sva_none"):
        form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": "cas_wrong"}
        answer = await world.client(address=STRANGER_ADDRESS).http.post("/oauth2/token", data=form)
        assert answer.status_code == 401
    refusal = Refusal(TENANT, "service_account", account, account, "wrong_secret")
    assert world.edge.refused == [(refusal, STRANGER_ADDRESS)]
