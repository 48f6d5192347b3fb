"""Every setting, typed and explained. Read from the environment (`CODEAGENT_*`) by the composition root only."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from codeagent.broker.topics import Profile
from codeagent.errors import CodeAgentError
from codeagent.identity.scopes import ALL, Scope
from codeagent.providers.registry import ProviderSettings

MIB = 1 << 20
PREFIX = "CODEAGENT_"
NOT_SETTINGS = frozenset(
    {
        "CODEAGENT_URL",  # where the command line finds the edge
        "CODEAGENT_API_KEY",  # and the key it shows there
        "CODEAGENT_IMAGE_TAG",  # of the image that docker-compose.yml names
        "CODEAGENT_REPAIR_OVERLAY",  # inside sandboxes, between builtin/repair and the tests it runs
    }
)
"""Variables with our prefix that somebody else reads; so are all that begin with `CODEAGENT_TEST_`."""
_TESTS = f"{PREFIX}TEST_"
# What Kubernetes tells every container of a namespace about a service there whose name begins with ours.
_SERVICE_LINK = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_ORIGIN = r"^https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?$"
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+")


class Misconfigured(CodeAgentError):
    """The environment does not make settings. The detail names every variable that is wrong, and no values."""

    code: ClassVar[str] = "misconfigured"


class ApiKeyEntry(BaseModel):
    """One API key of the key file: its SHA-256, never the key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_id: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    tenant_id: str
    principal_id: str
    scopes: frozenset[Scope] = ALL
    """What it may do; everything where nothing is said."""


class TrustedGitHost(BaseModel):
    """A host that runs may fetch from although its address is not public, such as an internal git server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")
    """As URLs name it. Whatever it resolves to is believed."""
    port: int = Field(default=443, ge=1, le=65535)
    certificates: Path | None = None
    """PEM file of the authority that signed its certificate, on the sandbox worker's machine; none: the usual ones."""


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("it should be a JSON list") from None


class Settings(BaseSettings):
    """Made by `read_settings`, which refuses what does not fit and every variable that is no setting."""

    model_config = SettingsConfigDict(env_prefix="CODEAGENT_", extra="forbid", frozen=True, env_ignore_empty=True)

    database_url: SecretStr
    """`postgresql://user:password@host:port/database`, PostgreSQL 15 or newer."""
    database_connections: int = Field(default=8, ge=2, le=100)
    """Connections each process may hold."""

    kafka_bootstrap_servers: str
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
    kafka_replication: int = Field(default=3, ge=1, le=7)
    """Replicas of topics that `codeagent topics apply` makes."""
    topics_dir: Path = Path(__file__).resolve().parent.parent / "topics"
    """The topic definitions."""
    topics_profile: Profile = "medium"
    """Which of the definitions' partition counts applies."""

    artifacts_dir: Path = Path("/var/lib/codeagent/artifacts")
    """Where artifacts are kept; one file system that all processes share."""
    sandbox_dir: Path = Path("/var/lib/codeagent/sandboxes")
    """Workspaces and runtimes of this machine's sandbox worker; shared with no other process."""

    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8080, ge=0, le=65535)
    """Of the edge."""
    monitor_host: str = "127.0.0.1"
    monitor_port: int = Field(default=0, ge=0, le=65535)
    """Of a worker's or the relay's health and metrics; 0 takes any free one."""
    cors_origins: Annotated[tuple[Annotated[str, Field(pattern=_ORIGIN)], ...], NoDecode, BeforeValidator(_parsed)] = ()
    """JSON list of web origins, as in `["https://console.example.com"]`, whose pages may open a WebSocket. Those of the
    edge's own address always may."""
    api_keys_file: Path | None = None
    """JSON list of API keys as digests; read again when it changes."""
    durable_accept: bool = False
    """Whether a submission is written to the database before it is answered, instead of waiting for the broker."""
    max_body_bytes: int = Field(default=MIB, ge=1024)
    max_upload_bytes: int = Field(default=256 * MIB, ge=1024)
    submit_expiry_seconds: int = Field(default=3600, ge=1)
    """A run that no worker has started by then fails as `queue_timeout`."""
    submission_retention_hours: int = Field(default=24, ge=1, le=8760)
    """How long a submission's own row is kept. After that a repeated Idempotency-Key is recognised by the run's log."""

    providers_file: Path | None = None
    """JSON list of model providers. `builtin/repair` is there without one."""
    default_model: str = "builtin/repair"
    """Of runs that name none."""
    provider_slots: int = Field(default=32, ge=1, le=1000)
    """Model calls at once in one provider worker."""
    sandbox_slots: int = Field(default=4, ge=1, le=200)
    """Operations at once in one sandbox worker."""
    sandbox_workspaces: int = Field(default=32, ge=1, le=1000)
    """Workspaces a sandbox worker keeps between operations."""
    trusted_git_hosts: Annotated[tuple[TrustedGitHost, ...], NoDecode, BeforeValidator(_parsed)] = ()
    """JSON list of hosts, as in `[{"host": "git.example.internal", "port": 8443, "certificates": "/etc/ssl/ca.pem"}]`,
    that runs may fetch from although their addresses are not public. The same for edges and sandbox workers. With
    none, only public addresses are fetched from."""
    minimum_level: int = Field(default=2, ge=1, le=3)
    """Isolation without which a sandbox worker does not start: 1 namespaces and seccomp, 2 with group limits and a
    user id of its own, 3 a kernel of its own."""
    lease_seconds: float = Field(default=30.0, ge=1, le=600)
    """How long a silent worker keeps an effect before another takes it."""
    max_attempts: int = Field(default=4, ge=1, le=20)
    """Claims of one effect before it ends `worker_lost`."""
    worker_name: str = ""
    """A name that this process alone has, also after a restart: what its dead predecessor had claimed is then taken
    back at once. Empty: a random one."""
    drain_seconds: float = Field(default=10.0, ge=0, le=600)
    """How long a process that is asked to stop may finish what it has begun."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    otlp_endpoint: str | None = None
    """Where spans go (OTLP over HTTP); none leave the process without it."""
    trace_ratio: float = Field(default=1.0, ge=0, le=1)

    def providers(self) -> list[ProviderSettings]:
        """The configured providers. Raises `ValueError` naming what is wrong with the file."""
        if self.providers_file is None:
            return []
        return TypeAdapter(list[ProviderSettings]).validate_json(self.providers_file.read_bytes())


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """A sentence on each variable that has our prefix and that nobody reads: a misspelt one must not pass silently."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | NOT_SETTINGS
    ours = [name for name in sorted(environment) if name.upper().startswith(PREFIX) and name.upper() not in known]
    return [_complaint(name, known) for name in ours if not _is_of_others(name.upper(), environment[name])]


def _is_of_others(name: str, value: str) -> bool:
    of_a_service = name.endswith("_PORT") and _SERVICE_ADDRESS.fullmatch(value)
    return bool(name.startswith(_TESTS) or _SERVICE_LINK.fullmatch(name) or of_a_service)


def _complaint(name: str, known: set[str]) -> str:
    # Compared without the prefix, which would make any two of them look alike.
    bare = [other.removeprefix(PREFIX) for other in sorted(known)]
    meant = difflib.get_close_matches(name.upper().removeprefix(PREFIX), bare, n=1)
    return f"{name} is not a setting" + (f", did you mean {PREFIX}{meant[0]}?" if meant else "")


def read_settings(**given: Any) -> Settings:
    """The settings of this process: from the environment, except for those that are `given`.

    Raises `Misconfigured` with everything that is wrong at once.
    """
    problems = unknown_variables(os.environ)
    try:
        settings = Settings(**given)
    except ValidationError as error:
        problems += [_problem(item["loc"], item["msg"]) for item in error.errors(include_input=False)]
    if problems:
        raise Misconfigured(f"the configuration is not usable: {'; '.join(problems)}")
    return settings


def _problem(location: Sequence[int | str], message: str) -> str:
    setting, *inside = (str(part) for part in location)
    return f"{PREFIX}{setting.upper()}{''.join(f'.{part}' for part in inside)}: {message}"
