"""How to reach Kafka, and how patient to be with it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """`sole_member` is for a broker with one worker of each kind, as on a laptop: it takes all partitions at once,
    without the seconds that joining a group costs. `idempotent` needs a broker that hands out producer ids; the
    embedded one does not. `fetch_wait_ms` bounds the broker's long poll: short on the embedded one, which answers no
    earlier when a record arrives."""

    bootstrap_servers: str
    client_id: str
    idempotent: bool = True
    fetch_wait_ms: int = 500
    timeout_seconds: float = 5.0
    session_timeout_ms: int = 10_000
    sole_member: bool = False
