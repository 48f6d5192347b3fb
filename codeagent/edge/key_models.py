"""Bodies of requests and answers about API keys."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Self

import orjson
from pydantic import AfterValidator, BaseModel, Field, PlainValidator, WithJsonSchema

from codeagent.edge.models import Strict, Whole
from codeagent.edge.moments import Moment
from codeagent.identity.api_keys import ApiKey, KeyStatus, MadeKey
from codeagent.identity.scopes import ALL, Scope

LONGEST_OVERLAP_SECONDS = 30 * 86_400
Expiry = Annotated[
    Moment | None,
    Field(description="When it ends; 90 days from now unless given.", examples=["2027-02-21T10:00:00Z"]),
]


def _network(value: object) -> IPv4Network | IPv6Network:
    # The library would take a number as well, and `false` for 0.0.0.0.
    if not isinstance(value, str):
        raise ValueError("a network is text, such as 192.0.2.0/24")
    return ip_network(value)


Network = Annotated[
    IPv4Network | IPv6Network,
    PlainValidator(_network),
    WithJsonSchema({"type": "string", "format": "ip-network", "minLength": 2, "maxLength": 100}),
]


def _grantable(scope: Scope) -> Scope:
    if scope not in ALL:
        raise ValueError("no credential of a tenant may have it")
    return scope


Grantable = Annotated[Scope, AfterValidator(_grantable), WithJsonSchema({"type": "string", "enum": sorted(ALL)})]
"""What somebody of a tenant can be permitted."""


class KeyBody(Strict):
    """A key to make. It acts for whoever makes it, with no more than the scopes that they hold now."""

    name: str = Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$", examples=["CI"])
    scopes: frozenset[Grantable] = Field(min_length=1, examples=[["runs:read", "runs:write"]])
    expires_at: Expiry = None
    networks: tuple[Network, ...] = Field(
        default=(),
        max_length=50,
        description="From where it may be used; anywhere if empty.",
        examples=[["192.0.2.0/24"]],
    )

    def fingerprint(self) -> str:
        """The same for requests that say the same."""
        said = self.name, sorted(self.scopes), self.expires_at, [str(network) for network in self.networks]
        return sha256(orjson.dumps(said)).hexdigest()


class RotateBody(Strict):
    """How long the old key can be used on, and when the new one ends."""

    overlap_seconds: Whole = Field(default=86_400, ge=0, le=LONGEST_OVERLAP_SECONDS)
    expires_at: Expiry = None


class KeyModel(BaseModel):
    """An API key without the key. `hint` is how it begins; `last_used_at` is about a minute exact."""

    id: str
    name: str
    status: KeyStatus
    hint: str
    principal_id: str
    created_by: str
    scopes: list[Scope]
    networks: list[str]
    replaces: str | None
    replaced_by: str | None
    version: int
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None

    @classmethod
    def of(cls, key: ApiKey) -> Self:
        names = ("id", "name", "status", "hint", "principal_id", "created_by", "replaces", "replaced_by", "version")
        times = ("created_at", "expires_at", "revoked_at", "last_used_at")
        return cls(
            scopes=sorted(key.scopes),
            networks=[str(network) for network in key.networks],
            **{name: getattr(key, name) for name in (*names, *times)},
        )


class MadeKeyModel(KeyModel):
    """A key that was made just now. `key` is shown this once and cannot be told again: null in the answer to a repeat
    of the request."""

    key: str | None

    @classmethod
    def showing(cls, made: MadeKey) -> Self:
        return cls(**KeyModel.of(made.key).model_dump(), key=made.secret)


class KeyPage(BaseModel):
    items: list[KeyModel]
    next_cursor: str | None
