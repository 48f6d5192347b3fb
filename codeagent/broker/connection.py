"""How to reach Kafka, and how patient to be with it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """TLS, and a name and password within it where there is a `username`; `mechanism` says how they are shown."""

    context: ssl.SSLContext
    mechanism: str = "SCRAM-SHA-512"
    username: str = ""
    password: str = field(default="", repr=False)

    def options(self) -> dict[str, Any]:
        """As the client library has them."""
        if not self.username:
            return {"security_protocol": "SSL", "ssl_context": self.context}
        return {
            "security_protocol": "SASL_SSL",
            "ssl_context": self.context,
            "sasl_mechanism": self.mechanism,
            "sasl_plain_username": self.username,
            "sasl_plain_password": self.password,
        }


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """`sole_member` is for a broker with one worker of each kind, as on a laptop: it takes all partitions at once,
    without the seconds that joining a group costs. `idempotent` needs a broker that hands out producer ids; the
    embedded one does not. `fetch_wait_ms` bounds the broker's long poll: short on the embedded one, which answers no
    earlier when a record arrives. `security` None is plain text."""

    bootstrap_servers: str
    client_id: str
    idempotent: bool = True
    fetch_wait_ms: int = 500
    timeout_seconds: float = 5.0
    session_timeout_ms: int = 10_000
    sole_member: bool = False
    security: KafkaSecurity | None = None

    def options(self) -> dict[str, Any]:
        """What every client of ours is told: where, as whom, and how securely."""
        secured = {} if self.security is None else self.security.options()
        return {"bootstrap_servers": self.bootstrap_servers, "client_id": self.client_id, **secured}
