"""Removing a member, and what it has to wait for or to leave."""

from __future__ import annotations

import asyncio

import httpx2

from codeagent import clock
from codeagent.eventlog.facts import Author, ControlPlane
from codeagent.identity.scopes import Role
from codeagent.identity.sessions import SessionPolicy
from codeagent.privacy.restriction import restrict
from tests.integration.identity.conftest import COLLEAGUE, PASSWORD, TENANT, World
from tests.integration.identity.test_members import add, member, refused_soon, remove, said
from tests.integration.identity.test_privacy import REQUESTS, begun, user_id_of

HOLDS = "/v1/privacy/holds"


async def address(world: World, user_id: str) -> tuple[bool, bool]:
    """Whether somebody is found by their address, and whether it is kept."""
    [row] = await world.database.fetch("SELECT email_digest, email_sealed FROM users WHERE id = $1", user_id)
    return row["email_digest"] is not None, row["email_sealed"] is not None


async def test_under_a_hold_access_ends_and_the_address_is_kept_until_it_is_lifted(world: World) -> None:
    owner, colleague = await world.owner(), await world.colleague()
    theirs = await user_id_of(colleague)
    await owner.call("PUT", f"{HOLDS}/{theirs}")
    assert (await remove(owner, theirs)).status_code == 204
    await refused_soon(colleague)
    assert (await world.client().authorize(COLLEAGUE, PASSWORD)).status_code == 400
    assert (await member(owner, theirs)).status_code == 404
    assert await address(world, theirs) == (False, True)
    access = await begun(owner, "access", theirs)
    assert (await owner.get(f"{REQUESTS}/{access['id']}/export")).json()["user"]["email"] == COLLEAGUE
    assert (await add(owner, {"email": COLLEAGUE, "role": "viewer"})).status_code == 201, "it may be used again"
    assert (await owner.call("DELETE", f"{HOLDS}/{theirs}")).status_code == 204
    assert await address(world, theirs) == (False, False)


async def test_a_hold_that_is_lifted_takes_no_address_of_a_member(world: World) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    await owner.call("PUT", f"{HOLDS}/{theirs}")
    await owner.call("DELETE", f"{HOLDS}/{theirs}")
    assert (await member(owner, theirs)).json()["email"] == COLLEAGUE
    assert (await remove(owner, theirs)).status_code == 204
    assert await address(world, theirs) == (False, False)


async def test_an_address_that_is_kept_stays_under_a_restriction_until_that_is_lifted_too(world: World) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    await owner.call("PUT", f"{HOLDS}/{theirs}")
    await remove(owner, theirs)
    request = await begun(owner, "restriction", theirs)
    await owner.call("DELETE", f"{HOLDS}/{theirs}")
    assert await address(world, theirs) == (False, True)
    await owner.call("POST", f"{REQUESTS}/{request['id']}/lift", headers={"If-Match": f'"{request["version"]}"'})
    assert await address(world, theirs) == (False, False)


async def test_a_removal_waits_for_a_restriction_and_leaves_an_owner(world: World) -> None:
    """One owner is being restricted while another is removed: whoever is second is told that they are the last."""
    owner, other = await world.owner(), await world.colleague(Role.OWNER)
    theirs = await user_id_of(other)
    etag = (await member(owner, theirs)).headers["etag"]

    async def removing() -> httpx2.Response:
        return await owner.call("DELETE", f"/v1/members/{theirs}", headers={"If-Match": etag})

    control = ControlPlane(world.edge.users.keys._database)
    author = Author(TENANT, "app_user", theirs, clock.new_uuid())
    async with control.change(author) as change:
        await restrict(change, TENANT, world.user_id, SessionPolicy())
        second = asyncio.create_task(removing())
        done, _ = await asyncio.wait({second}, timeout=0.5)
        assert not done
    assert said(await second) == (409, "last_owner")
    assert (await other.get("/v1/me")).status_code == 200
