"""Signed access tokens (RFC 9068), and the only place that knows python-jose.

The library accepts more than is safe: any algorithm where none is named, the key as an HMAC secret, headers it does not
understand, tokens without an end. So everything is decided here before it is asked: one key, by `kid`, with the one
algorithm that belongs to it; a header of exactly three members; claims that are all there and of the right types.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jose import jwk
from jose import jwt as jose_jwt
from jose.backends.base import Key
from jose.exceptions import ExpiredSignatureError, JOSEError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from codeagent.errors import CodeAgentError

Algorithm = Literal["ES256", "RS256"]
TYPE = "at+jwt"
MOST_CHARACTERS = 4096
LEEWAY_SECONDS = 5
_RSA_BITS = 3072
_HEADER = frozenset({"alg", "kid", "typ"})
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_BACKENDS = {"ES256": "CryptographyECKey", "RS256": "CryptographyRSAKey"}


class InvalidToken(CodeAgentError):
    """Not a token of ours. Why is not told: whoever holds a good one need not know."""

    code: ClassVar[str] = "unauthenticated"
    status: ClassVar[int] = 401

    def __init__(self) -> None:
        super().__init__("The access token is not valid.")


class ExpiredToken(CodeAgentError):
    """A token of ours that has had its time."""

    code: ClassVar[str] = "token_expired"
    status: ClassVar[int] = 401

    def __init__(self) -> None:
        super().__init__("The access token has expired.")


class Claims(BaseModel):
    """What an access token says. Times are seconds since 1970; `sid` is the login session that it belongs to."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    iss: str
    aud: str
    sub: str = Field(min_length=1)
    client_id: str = Field(min_length=1)
    iat: int
    exp: int
    nbf: int | None = None
    jti: str = Field(min_length=1)
    scope: str
    tenant_id: str = Field(min_length=1)
    auth_time: int
    sid: str = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Header:
    """An unverified header: good for choosing the key, and for nothing else."""

    kid: str
    algorithm: str


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key with the one algorithm it verifies."""

    kid: str
    algorithm: Algorithm
    key: Key

    @classmethod
    def from_pem(cls, kid: str, algorithm: Algorithm, pem: str) -> VerifyingKey:
        return cls(kid, algorithm, jwk.construct(pem, algorithm))

    def to_jwk(self) -> dict[str, Any]:
        """As a member of a JWKS (RFC 7517)."""
        return {**self.key.to_dict(), "kid": self.kid, "alg": self.algorithm, "use": "sig"}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with the one algorithm it signs with."""

    kid: str
    algorithm: Algorithm
    key: Key

    @classmethod
    def from_pem(cls, kid: str, algorithm: Algorithm, pem: bytes) -> SigningKey:
        return cls(kid, algorithm, jwk.construct(pem.decode(), algorithm))


def check_backend() -> None:
    """Raises `RuntimeError` unless `cryptography` does the signing: the pure Python fallback leaks keys by its timing
    (CVE-2024-23342)."""
    for algorithm, wanted in _BACKENDS.items():
        found = getattr(jwk.get_key(algorithm), "__name__", "nothing")
        if found != wanted:
            raise RuntimeError(f"{algorithm} would be done by {found} instead of {wanted}")


def generate_key(algorithm: Algorithm) -> tuple[bytes, str]:
    """A fresh key as PEM: the private part, and the public one."""
    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if algorithm == "ES256":
        private = ec.generate_private_key(ec.SECP256R1())
    else:
        private = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), public.decode()


def sign(claims: Claims, key: SigningKey) -> str:
    return jose_jwt.encode(
        claims.model_dump(exclude_none=True),
        key.key,
        algorithm=key.algorithm,
        headers={"typ": TYPE, "kid": key.kid},
    )


def read_header(token: str) -> Header:
    """The header of what looks like one of our tokens. Raises `InvalidToken`."""
    header = _document(_segments(token)[0])
    if header.keys() != _HEADER or header["typ"] != TYPE:
        raise InvalidToken
    kid, algorithm = header["kid"], header["alg"]
    if not isinstance(kid, str) or not isinstance(algorithm, str):
        raise InvalidToken
    return Header(kid, algorithm)


def verify(token: str, key: VerifyingKey, *, issuer: str, audience: str) -> Claims:
    """The claims of a token that `key` signed for us. Raises `InvalidToken` or `ExpiredToken`."""
    header = read_header(token)
    if header.kid != key.kid or header.algorithm != key.algorithm:
        raise InvalidToken
    claims = _claims(token)
    try:
        jose_jwt.decode(
            token,
            key.key,
            algorithms=[key.algorithm],
            issuer=issuer,
            audience=audience,
            options={
                **{f"require_{name}": True for name in ("exp", "iat", "aud", "iss", "sub", "jti")},
                "leeway": LEEWAY_SECONDS,
            },
        )
    except ExpiredSignatureError:
        raise ExpiredToken from None
    except JOSEError:
        raise InvalidToken from None
    return claims


def _claims(token: str) -> Claims:
    try:
        return Claims.model_validate(_document(_segments(token)[1]))
    except ValidationError:
        raise InvalidToken from None


def _segments(token: str) -> tuple[bytes, bytes, bytes]:
    """The three parts, decoded. One spelling of each is taken: no padding, no strange characters, no spare bits."""
    match = _COMPACT.fullmatch(token) if len(token) <= MOST_CHARACTERS else None
    if match is None:
        raise InvalidToken
    header, payload, signature = (_decoded(text) for text in match.groups())
    return header, payload, signature


def _decoded(text: str) -> bytes:
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise InvalidToken from None
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != text:
        raise InvalidToken
    return data


def _document(data: bytes) -> dict[str, Any]:
    """A JSON object that says nothing twice."""
    try:
        document = json.loads(data.decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise InvalidToken from None
    if not isinstance(document, dict):
        raise InvalidToken
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a name stands there twice")
    return document
