"""Sessions cannot be named in advance, guessed, or carried in an address."""

from __future__ import annotations

import time

import pytest

from tests.integration.identity.conftest import EMAIL, PASSWORD, STRANGER_ADDRESS, World, world
from tests.security.attacked import Target, pkce

__all__ = ["world"]


async def test_a_login_makes_a_session_that_nobody_could_name_before(world: World) -> None:
    """Session fixation: what the attacker brings along is not what the victim gets."""
    attacker = await world.owner()
    victim = world.client()
    victim.http.headers["Authorization"] = f"Bearer {attacker.access}"
    victim.http.headers["Cookie"] = f"session={attacker.refresh}; sid=chosen"
    answer = await victim.authorize(EMAIL, PASSWORD, state="lgn_chosen")
    redeemed = await victim.redeem(answer.json()["code"])
    assert redeemed.status_code == 200
    seen = [await world.edge.users.tokens.read(token) for token in (attacker.access, redeemed.json()["access_token"])]
    assert len({claims.sid for claims in seen}) == len({claims.jti for claims in seen}) == 2
    assert redeemed.json()["refresh_token"] != attacker.refresh
    for field in ("session_id", "sid", "jti", "code"):
        refused = await world.client().authorize(EMAIL, PASSWORD, **{field: "chosen"})
        assert refused.json()["error"] == "invalid_request", field


async def test_a_code_that_an_attacker_began_opens_nothing_for_a_victim(world: World) -> None:
    attacker, victim = world.client(address=STRANGER_ADDRESS), world.client()
    code = (await attacker.authorize(EMAIL, PASSWORD)).json()["code"]
    assert (await victim.redeem(code)).json()["error"] == "invalid_grant"


async def test_tokens_are_long_random_and_never_the_same(world: World) -> None:
    client = world.client()
    codes = [(await client.authorize(EMAIL, PASSWORD)).json()["code"] for _ in range(8)]
    tokens = [(await client.redeem(code)).json()["refresh_token"] for code in codes]
    for made in (codes, tokens):
        bodies = {text.partition("_")[2] for text in made}
        assert len(bodies) == len(made)
        assert min(len(body) for body in bodies) * 6 >= 256  # bits, six a character
        assert len({body[:8] for body in bodies}) == len({body[-8:] for body in bodies}) == len(made)


async def test_an_unknown_account_takes_as_long_as_a_wrong_password(world: World) -> None:
    """Grossly: who measures sees no difference of a hash. Each is tried in turn, so that load meets both alike."""
    client = world.client(address=STRANGER_ADDRESS)
    spent: dict[str, list[float]] = {EMAIL: [], "nobody@example.org": []}
    for _ in range(12):
        await world.sql("DELETE FROM login_throttles")
        for email, times in spent.items():
            started = time.perf_counter()
            await client.authorize(email, "not the password at all")
            times.append(time.perf_counter() - started)
    known, unknown = (min(times) for times in spent.values())
    assert 1 / 4 < known / unknown < 4


@pytest.mark.parametrize("name", ["access_token", "api_key", "key", "token", "authorization", "X-API-Key"])
async def test_a_credential_in_the_address_is_none(target: Target, name: str) -> None:
    async with target.client("none") as http:
        del http.headers["Authorization"]
        for path in ("/v1/me", "/v1/runs"):
            assert (await http.get(f"{path}?{name}={target.edge.keys.owner}")).status_code == 401
            cookie = await http.get(path, headers={"Cookie": f"{name}={target.edge.keys.owner}"})
            assert cookie.status_code == 401
            assert "set-cookie" not in cookie.headers
        _, challenge = pkce()
        body = {"client_id": "cli", "email": "a@b.c", "password": "p", "code_challenge": challenge}
        assert "set-cookie" not in (await http.post("/oauth2/authorize", json=body)).headers
