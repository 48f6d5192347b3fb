"""Access tokens that must not be taken, each made the way an attacker would make it.

Some are signed with the real key: what is wrong with them is what they say.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from codeagent.identity.jwt import TYPE, SigningKey, generate_key

Json = dict[str, Any]


def encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def packed(document: Json | bytes) -> str:
    return encoded(document if isinstance(document, bytes) else json.dumps(document).encode())


@dataclass(frozen=True)
class Genuine:
    """What the issuer signs with, and the claims of a token that is good at this moment. `other_kid` is the name of
    another key that is known."""

    key: SigningKey
    public_pem: str
    claims: Json
    other_kid: str

    @property
    def header(self) -> Json:
        return {"alg": self.key.algorithm, "typ": TYPE, "kid": self.key.kid}

    def signed(self, header: Json | bytes | None = None, claims: Json | bytes | None = None) -> str:
        text = f"{packed(header or self.header)}.{packed(claims or self.claims)}"
        return f"{text}.{encoded(self.key.key.sign(text.encode()))}"

    def unsigned(self, algorithm: str, signature: bytes = b"") -> str:
        return f"{packed({**self.header, 'alg': algorithm})}.{packed(self.claims)}.{encoded(signature)}"

    def hashed(self, secret: bytes) -> str:
        """HS256 with what everybody knows as the secret."""
        text = f"{packed({**self.header, 'alg': 'HS256'})}.{packed(self.claims)}"
        return f"{text}.{encoded(hmac.digest(secret, text.encode(), hashlib.sha256))}"

    def with_claims(self, **changes: object) -> str:
        changed = {**self.claims, **changes}
        return self.signed(claims={name: value for name, value in changed.items() if value is not None})

    def with_header(self, **changes: object) -> str:
        changed = {**self.header, **changes}
        return self.signed({name: value for name, value in changed.items() if value is not None})


def _der(pem: str) -> bytes:
    return load_pem_public_key(pem.encode()).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _other_key(genuine: Genuine) -> Genuine:
    private, _ = generate_key("ES256")
    return replace(genuine, key=SigningKey.from_pem(genuine.key.kid, "ES256", private))


def _tampered(genuine: Genuine) -> str:
    header, _, signature = genuine.signed().split(".")
    return f"{header}.{packed({**genuine.claims, 'scope': 'admin'})}.{signature}"


def _spare_bit(genuine: Genuine) -> str:
    """The same signature in another spelling: the last character has bits that decode to nothing."""
    token = genuine.signed()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


def _twice(document: Json, name: str, value: object) -> bytes:
    text = json.dumps(document)
    return f"{text[:-1]}, {json.dumps(name)}: {json.dumps(value)}}}".encode()


Forge = Callable[[Genuine], str]

KEYS: dict[str, Forge] = {
    "alg none": lambda g: g.unsigned("none"),
    "alg none with a signature": lambda g: g.unsigned("none", b"x" * 64),
    "alg NoNe": lambda g: g.unsigned("NoNe", b"x"),
    "alg of the other family": lambda g: g.with_header(alg="RS256" if g.key.algorithm == "ES256" else "ES256"),
    "HS256 with the public key as PEM": lambda g: g.hashed(g.public_pem.encode()),
    "HS256 with the public key as DER": lambda g: g.hashed(_der(g.public_pem)),
    "HS256 with nothing": lambda g: g.hashed(b""),
    "a key of the attacker's": lambda g: _other_key(g).signed({**g.header, "alg": "ES256"}),
    "unknown kid": lambda g: g.with_header(kid="sgk_none"),
    "kid of another key": lambda g: g.with_header(kid=g.other_kid),
    "no kid": lambda g: g.with_header(kid=None),
    "kid is a path": lambda g: g.with_header(kid="../../dev/null"),
    "kid is a number": lambda g: g.with_header(kid=1),
    "empty signature": lambda g: f"{packed(g.header)}.{packed(g.claims)}.",
    "signature of zeros": lambda g: f"{packed(g.header)}.{packed(g.claims)}.{encoded(bytes(64))}",
}
HEADERS: dict[str, Forge] = {
    "crit": lambda g: g.with_header(crit=["exp"]),
    "unknown crit": lambda g: g.with_header(crit=["x"], x=1),
    "jku": lambda g: g.with_header(jku="https://evil.example/jwks.json"),
    "jwk": lambda g: g.with_header(jwk={"kty": "oct", "k": "AA"}),
    "x5u": lambda g: g.with_header(x5u="https://evil.example/cert.pem"),
    "x5c": lambda g: g.with_header(x5c=["AA"]),
    "b64": lambda g: g.with_header(b64=False),
    "cty": lambda g: g.with_header(cty="JWT"),
    "typ JWT": lambda g: g.with_header(typ="JWT"),
    "typ of an ID token": lambda g: g.with_header(typ="id_token+jwt"),
    "no typ": lambda g: g.with_header(typ=None),
    "no alg": lambda g: g.with_header(alg=None),
    "alg is a list": lambda g: g.with_header(alg=["ES256"]),
    "a name twice in the header": lambda g: g.signed(_twice(g.header, "kid", g.key.kid)),
    "the header is a list": lambda g: g.signed(b"[1]"),
    "the header nests deeply": lambda g: g.signed(b"[" * 2_000),
}
CLAIMS: dict[str, Forge] = {
    "expired": lambda g: g.with_claims(exp=g.claims["iat"] - 60),
    "not yet": lambda g: g.with_claims(nbf=g.claims["iat"] + 3_600),
    "another audience": lambda g: g.with_claims(aud="https://elsewhere.example.org"),
    "a list of audiences": lambda g: g.with_claims(aud=[g.claims["aud"]]),
    "another issuer": lambda g: g.with_claims(iss="https://elsewhere.example.org"),
    "issuer with a slash": lambda g: g.with_claims(iss=f"{g.claims['iss']}/"),
    "exp as text": lambda g: g.with_claims(exp=str(g.claims["exp"])),
    "exp as a fraction": lambda g: g.with_claims(exp=g.claims["exp"] + 0.5),
    "exp is true": lambda g: g.with_claims(exp=True),
    "exp is infinite": lambda g: g.signed(claims=json.dumps({**g.claims, "exp": float("inf")}).encode()),
    "nbf as text": lambda g: g.with_claims(nbf="soon"),
    "empty subject": lambda g: g.with_claims(sub=""),
    "a scope that does not exist": lambda g: g.with_claims(scope="everything"),
    "scope is a list": lambda g: g.with_claims(scope=["admin"]),
    "a name twice in the claims": lambda g: g.signed(claims=_twice(g.claims, "exp", g.claims["exp"])),
    "claims are a list": lambda g: g.signed(claims=b"[]"),
    "claims are no JSON": lambda g: g.signed(claims=b"{"),
    "claims are no UTF-8": lambda g: g.signed(claims=b'{"a": "\xff"}'),
    "claims nest deeply": lambda g: g.signed(claims=b'{"a":' + b"[" * 1_500),
    **{
        f"no {name}": (lambda g, name=name: g.with_claims(**{name: None}))  # type: ignore[misc]
        for name in ("iss", "aud", "sub", "client_id", "iat", "exp", "jti", "scope", "tenant_id", "auth_time", "sid")
    },
}
SHAPES: dict[str, Forge] = {
    "tampered claims": _tampered,
    "another spelling of the signature": _spare_bit,
    "trailing garbage": lambda g: f"{g.signed()}!",
    "a trailing line": lambda g: f"{g.signed()}\n",
    "a trailing dot": lambda g: f"{g.signed()}.",
    "a fourth part": lambda g: f"{g.signed()}.AAAA",
    "padding": lambda g: f"{g.signed()}==",
    "garbage within": lambda g: g.signed().replace(".", ".*", 1),
    "two parts": lambda g: g.signed().rpartition(".")[0],
    "oversized": lambda g: g.with_claims(filler="x" * 4_096),
    "empty": lambda g: "..",
    "no token at all": lambda g: "certainly not a token",
}
ATTACKS: dict[str, Forge] = {**KEYS, **HEADERS, **CLAIMS, **SHAPES}


def forged(genuine: Genuine) -> Iterator[tuple[str, str]]:
    """Every attack's name and its token."""
    return ((name, forge(genuine)) for name, forge in ATTACKS.items())
