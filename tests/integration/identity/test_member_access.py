"""Members who were robbed, or have forgotten their password: others of the tenant end their logins and replace it."""

from __future__ import annotations

from codeagent.identity.scopes import Role
from tests.integration.identity.conftest import COLLEAGUE, EMAIL, PASSWORD, World
from tests.integration.identity.oauth_client import OAuthClient
from tests.integration.identity.test_members import refused_soon, said


async def id_of(client: OAuthClient) -> str:
    return str((await client.get("/v1/me")).json()["id"])


async def test_an_administrator_ends_the_logins_of_one_member_and_of_nobody_else(world: World) -> None:
    owner, colleague = await world.owner(), await world.colleague()
    elsewhere = world.client("console")
    (await elsewhere.log_in(COLLEAGUE, PASSWORD)).raise_for_status()
    user_id = await id_of(colleague)
    for _ in range(2):  # one who has no logins is left without them
        answer = await owner.call("DELETE", f"/v1/members/{user_id}/sessions")
        assert (answer.status_code, answer.content) == (204, b"")
    for client in (colleague, elsewhere):
        await refused_soon(client)
        assert (await client.renew()).status_code == 400
    assert (await owner.get("/v1/me")).status_code == 200
    (await colleague.log_in(COLLEAGUE, PASSWORD)).raise_for_status()
    ended = [event for event in await world.facts(f"user-{user_id}") if event.type == "auth.sessions.revoked"]
    assert [event.metadata["authid"] for event in ended] == [world.user_id]


async def test_a_forgotten_password_is_replaced_by_one_that_serves_to_choose_another(world: World) -> None:
    owner, colleague = await world.owner(), await world.colleague()
    user_id = await id_of(colleague)
    answer = await owner.call("POST", f"/v1/members/{user_id}/password")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    temporary = answer.json()["temporary_password"]
    await refused_soon(colleague)
    assert (await world.client().authorize(COLLEAGUE, PASSWORD)).status_code != 200
    (await colleague.log_in(COLLEAGUE, temporary)).raise_for_status()
    assert said(await colleague.get("/v1/runs")) == (403, "insufficient_scope")
    own = {"current_password": temporary, "new_password": "analytical engine no. 1"}
    assert (await colleague.call("POST", "/v1/auth/password", json=own)).status_code == 204
    (await colleague.renew()).raise_for_status()
    assert (await colleague.get("/v1/runs")).status_code == 200
    facts = await world.facts(f"user-{user_id}")
    [reset] = [event for event in facts if event.type == "auth.password.reset"]
    assert reset.metadata["authid"] == world.user_id
    assert temporary not in "".join(str(event.document()) for event in facts)


async def test_nobody_gets_around_their_own_password(world: World) -> None:
    """A login that was stolen is no way to the account."""
    owner = await world.owner()
    assert said(await owner.call("POST", f"/v1/members/{world.user_id}/password")) == (409, "own_password")
    assert (await world.client().authorize(EMAIL, PASSWORD)).status_code == 200


async def test_an_administrator_has_no_way_to_an_owners_account(world: World) -> None:
    administrator = await world.colleague(Role.ADMIN)
    path = f"/v1/members/{world.user_id}"
    assert said(await administrator.call("POST", f"{path}/password")) == (403, "insufficient_scope")
    assert said(await administrator.call("DELETE", f"{path}/sessions")) == (403, "insufficient_scope")
