"""Signing keys come and go without a token being refused that is still good."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from codeagent import clock
from codeagent.identity.jwt import read_header
from codeagent.identity.keys import KeyRing
from codeagent.identity.signing import RotationPolicy, SigningKeys
from codeagent.identity.user_access import UserPolicy
from tests.integration.identity.conftest import BOX, ISSUER, World, make_edge

SHIFT = "UPDATE signing_keys SET active_from = active_from - $1::interval"


async def kids(world: World) -> list[str]:
    """The published keys, oldest first."""
    rows = await world.database.fetch("SELECT kid FROM signing_keys ORDER BY active_from")
    return [row["kid"] for row in rows]


async def signed_with(world: World) -> str:
    client = await world.owner()
    return read_header(client.access).kid


async def test_the_next_key_is_published_before_it_signs_and_the_old_one_verifies_after_it(world: World) -> None:
    keys = world.edge.users.keys
    client = await world.owner()
    [old] = await kids(world)
    # 29 days on: the next one is published, and does not sign yet.
    await world.sql(SHIFT, timedelta(days=29, minutes=1))
    await _reread(keys)
    [_, new] = await kids(world)
    published = (await client.http.get("/.well-known/jwks.json")).json()["keys"]
    assert [key["kid"] for key in published] == [old, new]
    assert await signed_with(world) == old
    # One day on: it signs, and what the old one signed still holds.
    await world.sql(SHIFT, timedelta(days=1))
    await _reread(keys)
    assert await kids(world) == [old, new]
    assert await signed_with(world) == new
    assert (await client.get("/v1/me")).status_code == 200
    # An hour later nothing is left that the old one signed.
    await world.sql(SHIFT, timedelta(hours=1))
    await _reread(keys)
    assert await kids(world) == [new]
    assert (await client.get("/v1/me")).status_code == 401
    assert [event.type for event in await world.facts(f"signing-{old}")] == [
        "signing_key.published",
        "signing_key.removed",
    ]


async def _reread(keys: SigningKeys) -> None:
    keys._keys.clear()  # rows never change but in tests
    await keys.refresh()


async def test_many_edges_that_start_or_rotate_at_once_make_one_key(world: World) -> None:
    database = world.edge.users.keys._database
    await world.sql("DELETE FROM signing_keys")
    edges = [SigningKeys(database, BOX) for _ in range(5)]
    await asyncio.gather(*(edge.refresh() for edge in edges))
    assert len(await kids(world)) == 1
    assert len({(await edge.signer()).kid for edge in edges}) == 1
    await world.sql(SHIFT, timedelta(days=40))
    for edge in edges:
        edge._keys.clear()
    await asyncio.gather(*(edge.refresh() for edge in edges))
    assert len(await kids(world)) == 2


async def test_keys_that_somebody_may_have_are_replaced_at_once(world: World) -> None:
    client = await world.owner()
    await world.edge.users.keys.replace_all()
    assert (await client.get("/v1/me")).status_code == 401
    assert (await client.renew()).status_code == 200
    assert (await client.get("/v1/me")).status_code == 200


async def test_another_algorithm_takes_over_as_any_other_key_does(world: World) -> None:
    rotation = RotationPolicy("RS256", lead=timedelta(0))
    edge = make_edge(world.edge.users.keys._database, KeyRing({}), world.folder, UserPolicy(ISSUER, rotation))
    await edge.users.keys.refresh()
    await edge.revocations.start()
    client = await world.owner()
    assert read_header(client.access).algorithm == "ES256"
    renewed = edge.client()
    renewed.refresh = client.refresh
    assert (await renewed.renew()).status_code == 200
    assert read_header(renewed.access).algorithm == "RS256"
    world.edge.users.keys._read_at = float("-inf")  # it looked long enough ago to look again
    both = [client.access, renewed.access]
    for either in (world.edge, edge):
        for token in both:
            answer = await either.http("198.51.100.7").get("/v1/me", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 200
    await edge.revocations.stop()
    await edge.users.passwords.close()


async def test_private_keys_are_sealed_in_the_database(world: World) -> None:
    [row] = await world.database.fetch("SELECT kid, private_sealed FROM signing_keys")
    assert b"PRIVATE" not in row["private_sealed"]
    assert b"BEGIN PRIVATE KEY" in BOX.open(row["private_sealed"], f"signing_keys/{row['kid']}/private")
    assert clock.now() >= (await world.facts(f"signing-{row['kid']}"))[0].occurred_at
