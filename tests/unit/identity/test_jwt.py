"""The one place that knows python-jose takes its own tokens and no others."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from jose import jwt as jose_jwt

from codeagent.identity import jwt
from codeagent.identity.jwt import (
    Algorithm,
    Claims,
    ExpiredToken,
    InvalidToken,
    SigningKey,
    VerifyingKey,
    check_backend,
    generate_key,
    read_header,
    sign,
    verify,
)
from tests.unit.identity.forged_tokens import ATTACKS, Genuine

ISSUER = "https://agents.example.org"


def claims(**changes: Any) -> Claims:
    now = int(time.time())
    document = {
        "iss": ISSUER,
        "aud": ISSUER,
        "sub": "usr_1",
        "client_id": "cli",
        "iat": now,
        "exp": now + 600,
        "jti": "1",
        "scope": "runs:read",
        "tenant_id": "ten_1",
        "auth_time": now,
        "sid": "lgn_1",
    }
    return Claims.model_validate({**document, **changes})


def make(algorithm: Algorithm, kid: str) -> tuple[SigningKey, VerifyingKey, str]:
    private, public = generate_key(algorithm)
    return SigningKey.from_pem(kid, algorithm, private), VerifyingKey.from_pem(kid, algorithm, public), public


PAIRS = {algorithm: make(algorithm, "k1") for algorithm in ("ES256", "RS256")}  # type: ignore[arg-type]


@pytest.fixture(params=["ES256", "RS256"])
def pair(request: pytest.FixtureRequest) -> tuple[SigningKey, VerifyingKey, str]:
    return PAIRS[request.param]


@pytest.fixture
def genuine(pair: tuple[SigningKey, VerifyingKey, str]) -> Genuine:
    return Genuine(pair[0], pair[2], claims().model_dump(exclude_none=True), "k2")


def accepted(token: str, key: VerifyingKey) -> Claims:
    return verify(token, key, issuer=ISSUER, audience=ISSUER)


def test_a_token_is_read_back_as_it_was_signed(pair: tuple[SigningKey, VerifyingKey, str]) -> None:
    signing, verifying, _ = pair
    said = claims()
    token = sign(said, signing)
    assert accepted(token, verifying) == said
    header = read_header(token)
    assert (header.kid, header.algorithm) == ("k1", signing.algorithm)
    assert json.loads(jwt._decoded(token.split(".")[0])) == {"alg": signing.algorithm, "typ": "at+jwt", "kid": "k1"}


def test_what_the_forger_starts_from_is_good(genuine: Genuine, pair: tuple[SigningKey, VerifyingKey, str]) -> None:
    assert accepted(genuine.signed(), pair[1]).sub == "usr_1"
    assert accepted(genuine.with_claims(nbf=genuine.claims["iat"], more="x"), pair[1]).sub == "usr_1"


# A scope is judged by whoever makes a caller of the claims; a `kid` chooses the key before this is asked.
ELSEWHERE = {"a scope that does not exist"}


@pytest.mark.parametrize("name", sorted(ATTACKS.keys() - ELSEWHERE))
def test_a_forged_token_is_refused(name: str, genuine: Genuine, pair: tuple[SigningKey, VerifyingKey, str]) -> None:
    token = ATTACKS[name](genuine)
    with pytest.raises(ExpiredToken if name == "expired" else InvalidToken):
        accepted(token, pair[1])


def test_an_expired_token_is_told_from_a_forged_one_only_where_its_signature_holds(genuine: Genuine) -> None:
    past = {**genuine.claims, "exp": genuine.claims["iat"] - 60}
    with pytest.raises(InvalidToken):
        accepted(genuine.signed(claims=past)[:-4] + "AAAA", PAIRS[genuine.key.algorithm][1])


def test_clocks_may_differ_by_a_few_seconds(pair: tuple[SigningKey, VerifyingKey, str]) -> None:
    now = int(time.time())
    assert accepted(sign(claims(exp=now - 2, nbf=now + 2), pair[0]), pair[1]).exp == now - 2
    with pytest.raises(ExpiredToken):
        accepted(sign(claims(exp=now - 30), pair[0]), pair[1])


def test_the_library_alone_would_take_what_is_refused_here(genuine: Genuine) -> None:
    """Why the module exists: should this fail after an upgrade, its rules may be looked at again."""
    token = genuine.with_header(crit=["x"], typ="JWT")
    assert jose_jwt.decode(token, genuine.public_pem, audience=ISSUER)["sub"] == "usr_1"


def test_keys_are_told_to_others_without_their_private_part(pair: tuple[SigningKey, VerifyingKey, str]) -> None:
    document = pair[1].to_jwk()
    assert (document["kid"], document["alg"], document["use"]) == ("k1", pair[1].algorithm, "sig")
    assert set(document) & {"d", "p", "q", "dp", "dq", "qi", "k"} == set()


def test_without_the_cryptography_backend_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    check_backend()

    class ECDSAECKey:
        pass

    monkeypatch.setattr("jose.jwk.get_key", lambda _: ECDSAECKey)
    with pytest.raises(RuntimeError, match="ECDSAECKey instead of CryptographyECKey"):
        check_backend()
