"""What clients of an edge may do, and how much of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, IPvAnyNetwork, SecretStr
from pydantic_settings import NoDecode

from codeagent.settings.about import About, Group, parsed

_RATE = r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$"
_CONTACT = r"^(https://|mailto:|tel:)[!-~]+$"


class TrafficSettings(Group):
    """Limits of the edge. Numbers and times are those of each process."""

    trusted_proxies: Annotated[
        tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(parsed), About(unit="networks")
    ] = ()
    """JSON list of addresses or networks of the proxies in front of the edge, as in `["10.0.0.0/8"]`. What their
    X-Forwarded-For and X-Forwarded-Proto say is believed; from anybody else these headers are dropped."""
    security_contact: str | None = Field(default=None, pattern=_CONTACT, max_length=500)
    """Where security.txt sends those who have found a weakness, as in `mailto:security@example.com`. Without it there
    is no security.txt."""
    valkey_url: SecretStr | None = None
    """`valkey://host:6379/0` or `redis://...`, `valkeys://` with TLS: edges that name the same one count rates
    together, and share what they have folded of long runs, sealed, where there is a key-encryption key. Without it each
    works by itself."""

    rate_submit: str = Field(default="600/minute", pattern=_RATE)
    """Runs that one credential may start."""
    rate_write: str = Field(default="1200/minute", pattern=_RATE)
    """Other changes that one credential may make."""
    rate_read: str = Field(default="12000/minute", pattern=_RATE)
    """Requests that one credential may read with."""
    rate_anonymous: str = Field(default="300/minute", pattern=_RATE)
    """Requests of one address, or one IPv6 network, without a valid credential: failed attempts included."""
    rate_tenant_factor: Annotated[int, About(unit="times")] = Field(default=5, ge=1, le=10_000)
    """A tenant has this many times the rate of one credential."""

    max_in_flight: Annotated[int, About(unit="requests")] = Field(default=400, ge=1, le=100_000)
    """Requests at work at once; more are answered 503. Open streams and waits are not counted."""
    max_in_flight_per_tenant: Annotated[int, About(unit="requests")] = Field(default=300, ge=1, le=100_000)
    """Requests of one tenant at work at once; more are answered 429."""
    max_streams: Annotated[int, About(unit="streams")] = Field(default=5_000, ge=1, le=1_000_000)
    """Open streams, WebSockets and waiting requests; more are answered 503."""
    max_streams_per_tenant: Annotated[int, About(unit="streams")] = Field(default=1_000, ge=1, le=1_000_000)
    """Those of one tenant; more are answered 429."""
    max_loop_lag_seconds: float = Field(default=1.0, gt=0, le=60)
    """How late the event loop may be, twice in a row, before requests are answered 503."""
    max_connections: Annotated[int, About(unit="connections")] = Field(default=10_000, ge=1, le=1_000_000)
    """Connections of clients at once; more are answered 503 and closed."""

    max_url_bytes: int = Field(default=8_192, ge=256, le=1 << 20)
    """Longest path and query of a request."""
    max_headers: Annotated[int, About(unit="headers")] = Field(default=100, ge=20, le=10_000)
    """Most headers of a request."""
    max_header_bytes: int = Field(default=32_768, ge=1024, le=1 << 20)
    """Most bytes of all headers of a request together."""
    header_timeout_seconds: float = Field(default=10.0, gt=0, le=600)
    """How long a request's headers may take to come."""
    body_timeout_seconds: float = Field(default=30.0, gt=0, le=3_600)
    """How long a request's body may take to come, and a second more for every 16 KiB of it that have."""
    request_timeout_seconds: float = Field(default=90.0, gt=0, le=3_600)
    """How long the answer to a request may take that is no stream and does not wait for a run."""
    keep_alive_seconds: int = Field(default=75, ge=1, le=3_600)
    """How long a connection may be idle. Longer than the proxy's in front, which is then the one to close."""
