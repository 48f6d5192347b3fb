"""The way in: addresses, bounds of requests, and who may ask from a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_settings import NoDecode

from codeagent.identity.scopes import ALL, Scope
from codeagent.settings.about import About, Group, parsed

MIB = 1 << 20
LEAST_PEPPER = 32
"""Characters of an API key pepper."""

_ORIGIN = r"^(\*|https?://([A-Za-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?)$"
_URL = r"^https?://([A-Za-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?(/[!-~]*)?$"


class ApiKeyEntry(BaseModel):
    """One API key of the key file: its SHA-256, never the key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_id: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    tenant_id: str
    principal_id: str
    scopes: frozenset[Scope] = ALL
    """What it may do; everything where nothing is said."""


class HttpSettings(Group):
    """The edge, and the monitor port of every other process."""

    http_host: str = Field(default="127.0.0.1", min_length=1, max_length=255)
    """Address the edge listens on."""
    http_port: int = Field(default=8080, ge=0, le=65535)
    """Port of the edge; 0 takes any free one."""
    public_url: str | None = Field(default=None, pattern=_URL, max_length=500)
    """Where clients reach the edge, as in `https://codeagent.example.com`: the issuer and audience of access tokens,
    named in the OpenAPI document too. Without it the address that the edge listens on."""
    allowed_origins: Annotated[
        tuple[Annotated[str, Field(pattern=_ORIGIN)], ...], NoDecode, BeforeValidator(parsed), About(unit="origins")
    ] = ()
    """JSON list of web origins whose pages may call the API, as in `["https://console.example.com"]`; none without it.
    `*` admits every page there is."""
    monitor_host: str = Field(default="127.0.0.1", min_length=1, max_length=255)
    """Address of a worker's or the relay's health and metrics."""
    monitor_port: int = Field(default=0, ge=0, le=65535)
    """Port of a worker's or the relay's health and metrics; 0 takes any free one."""
    api_keys_file: Annotated[Path | None, About(reloads="within a second of the next request")] = None
    """JSON list of API keys as digests: the first ones, and those that must work without the database."""
    api_key_pepper: SecretStr | None = None
    """Secret under which API keys in the database are hashed: 32 characters or more, the same on every edge. Several
    are separated by commas, the newest first: keys that were made under any of them are known."""
    api_key_max_days: Annotated[int, About(unit="days")] = Field(default=365, ge=1, le=3650)
    """How many days ahead a key's end may be. Keys end after 90 days unless told otherwise."""
    revocation_stale_seconds: float = Field(default=5.0, ge=1, le=300)
    """After how long without a look at the database an edge is not ready, since it may not know what is revoked."""
    revocation_fail_closed: bool = True
    """Whether it then also refuses API keys and sessions with 503. Keys from the file are accepted all the same."""
    token_algorithm: Literal["ES256", "RS256"] = "ES256"  # noqa: S105  no secret
    """What access tokens are signed with. A change takes effect through a new key, like any rotation."""
    signing_key_days: Annotated[int, About(unit="days")] = Field(default=30, ge=2, le=365)
    """How long a key signs before the next one does. That one is published a day before."""
    durable_accept: bool = False
    """Whether a submission is written to the database before it is answered, instead of waiting for the broker."""
    max_body_bytes: int = Field(default=MIB, ge=1024, le=64 * MIB)
    """Largest body of a request that is no upload."""
    max_upload_bytes: int = Field(default=256 * MIB, ge=1024, le=16_384 * MIB)
    """Largest archive that may be uploaded."""
    submit_expiry_seconds: int = Field(default=3600, ge=1, le=604_800)
    """A run that no worker has started by then fails as `queue_timeout`."""
    submission_retention_hours: int = Field(default=24, ge=1, le=8760)
    """How long a submission's own row is kept. After that a repeated Idempotency-Key is recognised by the run's log."""

    def api_key_peppers(self) -> list[bytes]:
        """The peppers, the newest first; none in a development system without one. Raises `ValueError` for a short
        one, never telling it: only here is it sure that the secret itself is at hand and not a reference to it."""
        text = "" if self.api_key_pepper is None else self.api_key_pepper.get_secret_value()
        peppers = [pepper.encode() for pepper in text.split(",") if pepper]
        if any(len(pepper) < LEAST_PEPPER for pepper in peppers):
            raise ValueError(f"each API key pepper should have {LEAST_PEPPER} characters or more")
        return peppers
