"""Where facts, artifacts and workspaces are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from codeagent.settings.about import About, Group, parsed

RoleName = Literal["edge", "agent-worker", "provider-worker", "sandbox-worker", "relay"]
_REPLACED = "within a second from a file, within VAULT_TTL_SECONDS from the vault; connections are replaced one by one"


class StorageSettings(Group):
    """Database and directories."""

    database_url: Annotated[SecretStr, About(reloads=_REPLACED)]
    """`postgresql://user:password@host:port/database`, PostgreSQL 15 or newer. `?sslmode=verify-full` asks for TLS."""
    database_password: Annotated[SecretStr | None, About(reloads=_REPLACED)] = None
    """Goes before the one in DATABASE_URL, so that the address need not be secret."""
    database_connections: Annotated[int, About(unit="connections")] = Field(default=8, ge=2, le=100)
    """Connections each process may hold in its pool."""
    deployed_processes: Annotated[
        dict[RoleName, Annotated[int, Field(ge=0, le=1000)]], NoDecode, BeforeValidator(parsed), About(unit="processes")
    ] = Field(default_factory=dict)
    """JSON object of how many processes of each role are deployed, one each where nothing is said. Only
    `codeagent config check --database` reads it, to hold the sum of their connections against the server's limit."""
    artifacts_dir: Path = Path("/var/lib/codeagent/artifacts")
    """Where artifacts are kept; one file system that all processes share."""
    artifact_grace_hours: Annotated[float, About(unit="hours")] = Field(default=168.0, ge=1.0, le=8760.0)
    """How long an artifact is kept that neither the log nor a command under way names, after it was last stored or
    asked for. Longer than the broker keeps commands, and than submissions are kept."""
    dependencies_days: Annotated[float, About(unit="days")] = Field(default=30.0, ge=8.0, le=3650.0)
    """How long what runs of a project have installed is remembered after the last run that used it. Longer than a run
    may wait for a person."""
    backup_dir: Path | None = None
    """Directory of backups, for `codeagent db`. The PostgreSQL of `codeagent up` archives its write-ahead log there, so
    that it can be restored to any moment; without it nothing is archived."""
    run_content_days: Annotated[float | None, About(unit="days")] = Field(default=None, ge=1.0, le=36500.0)
    """How long tasks, messages, results and artifacts of runs are kept after the run's end, before they are taken out
    of the log; as long as the log where nothing is said. Legal holds go before. `codeagent db upgrade` writes it into
    the database, which holds the relay to it."""
    sandbox_dir: Path = Path("/var/lib/codeagent/sandboxes")
    """Workspaces and runtimes of this machine's sandbox worker; shared with no other process."""
