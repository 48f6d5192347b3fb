"""How messages travel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from codeagent.broker.topics import Profile
from codeagent.settings.about import About, Group

_ADDRESS = r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}"


class BrokerSettings(Group):
    """Kafka and its topics."""

    kafka_bootstrap_servers: str = Field(pattern=rf"^{_ADDRESS}(,{_ADDRESS})*$", max_length=4_000)
    """`host:port[,host:port...]`."""
    kafka_idempotent: bool = True
    """Whether producers ask for an id, so that a repeated send is stored once. Off only for the embedded broker."""
    kafka_sole_member: bool = False
    """Whether there is one worker of each kind, which then takes all partitions without joining a group."""
    kafka_fetch_wait_ms: int = Field(default=500, ge=1, le=10_000)
    """How long the broker may hold a fetch back. The embedded broker answers no earlier when a record arrives and
    needs a short one; below 100 it is ten times as long while no records come."""
    kafka_timeout_seconds: float = Field(default=5.0, gt=0, le=60)
    """Bound of every publish and stop."""
    kafka_replication: Annotated[int, About(unit="replicas")] = Field(default=3, ge=1, le=7)
    """Replicas of topics that `codeagent topics apply` makes."""
    topics_dir: Path = Path(__file__).resolve().parents[2] / "topics"
    """The topic definitions."""
    topics_profile: Profile = "medium"
    """Which of the definitions' partition counts applies: `dev` 6, `medium` 24, `large` 48. Growing it later moves
    keys to other partitions."""
