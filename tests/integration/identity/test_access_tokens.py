"""Access tokens at the edge: forged ones are refused with the way in, and cost nothing but themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from codeagent.errors import Unavailable
from codeagent.identity.jwt import read_header, sign
from codeagent.identity.signing import SigningKeys
from tests.integration.identity.conftest import BOX, ISSUER, World
from tests.unit.identity.forged_tokens import Genuine, forged

METADATA = f'resource_metadata="{ISSUER}/.well-known/oauth-protected-resource"'


async def genuine(world: World) -> Genuine:
    """The edge's own key, in the hands of the forger, and a second one that is known as well."""
    client = await world.owner()
    keys = world.edge.users.keys
    claims = await world.edge.users.tokens.read(client.access)
    key = await keys.signer()
    await keys.publish_successor()
    [public] = await world.database.fetch("SELECT public_key FROM signing_keys WHERE kid = $1", key.kid)
    [other] = await world.database.fetch("SELECT kid FROM signing_keys WHERE kid <> $1", key.kid)
    return Genuine(key, public["public_key"], claims.model_dump(exclude_none=True), other["kid"])


async def test_every_forged_token_is_answered_401_and_told_the_way_in(
    world: World, record_property: Callable[[str, object], None]
) -> None:
    real = await genuine(world)
    http = world.client().http
    good = await http.get("/v1/me", headers={"Authorization": f"Bearer {real.signed()}"})
    assert good.status_code == 200
    tried = 0
    for name, token in forged(real):
        if token != token.strip():
            continue  # a header's value cannot end in white space
        answer = await http.get("/v1/me", headers={"Authorization": f"Bearer {token}".encode()})
        code = "token_expired" if name == "expired" else "unauthenticated"
        assert (answer.status_code, answer.json()["code"]) == (401, code), name
        challenge = answer.headers["www-authenticate"]
        assert challenge.startswith("Bearer "), name
        assert METADATA in challenge, name
        assert 'error="invalid_token"' in challenge, name
        tried += 1
    record_property("cases", tried)
    assert tried >= 65


async def test_who_shows_nothing_is_told_the_way_in_and_of_no_error(world: World) -> None:
    answer = await world.client().http.get("/v1/me")
    assert answer.status_code == 401
    challenge = answer.headers["www-authenticate"]
    assert METADATA in challenge
    assert "error" not in challenge


async def test_tokens_with_keys_nobody_knows_cost_one_query_in_two_seconds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = await genuine(world)
    keys, reads = world.edge.users.keys, 0
    fetch = keys._database.fetch

    async def counted(*arguments: object, **named: object) -> object:
        nonlocal reads
        reads += "signing_keys" in str(arguments[0])
        return await fetch(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(keys._database, "fetch", counted)
    http = world.client().http
    tokens = [real.with_header(kid=f"sgk_{number}") for number in range(50)]
    answers = await asyncio.gather(*(http.get("/v1/me", headers={"Authorization": f"Bearer {t}"}) for t in tokens))
    assert {answer.status_code for answer in answers} == {401}
    assert reads <= 1


async def test_a_key_that_another_edge_has_made_is_found_when_it_is_first_needed(world: World) -> None:
    other = SigningKeys(world.edge.users.keys._database, BOX)
    await other.replace_all()
    client = await world.owner()  # signed by this edge with a key that is gone
    world.edge.users.keys._read_at = float("-inf")
    token = await _issued_elsewhere(world, other, client.access)
    answer = await client.http.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    assert (await client.get("/v1/me")).status_code == 401


async def _issued_elsewhere(world: World, keys: SigningKeys, like: str) -> str:
    claims = await world.edge.users.tokens.read(like)
    signer = await keys.signer()
    assert signer.kid != read_header(like).kid
    return sign(claims, signer)


async def test_while_the_keys_cannot_be_read_a_token_is_answered_503_and_never_401(world: World) -> None:
    client = await world.owner()
    empty = SigningKeys(_Away(), BOX)  # type: ignore[arg-type]
    world.edge.users.tokens._keys = empty
    answer = await client.get("/v1/me")
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert "retry-after" in answer.headers
    token = await client.http.post(
        "/oauth2/token", data={"grant_type": "refresh_token", "client_id": "cli", "refresh_token": client.refresh}
    )
    assert (token.status_code, token.json()["error"]) == (503, "temporarily_unavailable")
    assert "retry-after" in token.headers


class _Away:
    async def fetch(self, *_: object, **__: object) -> object:
        raise Unavailable("the database does not answer", code="database_unavailable")


async def test_what_clients_need_to_know_is_where_the_standards_say(world: World) -> None:
    http = world.client().http
    server = await http.get("/.well-known/oauth-authorization-server")
    document = server.json()
    assert document["issuer"] == ISSUER
    assert document["jwks_uri"] == f"{ISSUER}/.well-known/jwks.json"
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert "implicit" not in document["grant_types_supported"]
    jwks = await http.get("/.well-known/jwks.json")
    assert jwks.headers["cache-control"] == "public, max-age=300"
    [key] = jwks.json()["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "alg", "use"}
    resource = (await http.get("/.well-known/oauth-protected-resource")).json()
    assert (resource["resource"], resource["authorization_servers"]) == (ISSUER, [ISSUER])
