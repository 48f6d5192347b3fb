"""How messages travel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from codeagent.broker.topics import Profile
from codeagent.settings.about import About, Group

_ADDRESS = r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}"


class BrokerSettings(Group):
    """Kafka and its topics."""

    kafka_bootstrap_servers: str = Field(pattern=rf"^{_ADDRESS}(,{_ADDRESS})*$", max_length=4_000)
    """`host:port[,host:port...]`."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_SSL"] = "PLAINTEXT"
    """`SSL` is TLS, `SASL_SSL` a name and password within it. Production refuses `PLAINTEXT` to other machines."""
    kafka_ca_file: Path | None = None
    """Certificates, as PEM, of who signs the brokers'; the system's unless given."""
    kafka_certificate_file: Path | None = None
    """This process's own certificate, as PEM, where the brokers ask for one."""
    kafka_certificate_key_file: Path | None = None
    """The private key of that, as PEM and not encrypted."""
    kafka_sasl_mechanism: Literal["SCRAM-SHA-512", "PLAIN"] = "SCRAM-SHA-512"
    """How the password is shown."""
    kafka_username: str | None = Field(default=None, max_length=300)
    """Of `SASL_SSL`."""
    kafka_password: SecretStr | None = None
    """Of `SASL_SSL`."""
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
