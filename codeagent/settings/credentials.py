"""Secrets, and the vault that may hold them.

Every secret setting takes its value, or a reference to it: `file:/run/secrets/x`, `env:NAME`, `vault:path#field`.
`CODEAGENT_X_FILE=/path` is short for `CODEAGENT_X=file:/path`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from codeagent.settings.about import About, Group

_RELOADED = "within a second from a file, within VAULT_TTL_SECONDS from the vault"


class CredentialSettings(Group):
    """Keys of our own, and the way to the vault."""

    kek: Annotated[SecretStr | None, About(reloads=_RELOADED)] = None
    """Key-encryption keys that seal secrets in the database: lines of `name:base64`, the one in use first. Made by
    `codeagent kek new`."""
    subject_keys_dir: Path | None = None
    """Directory of the keys under which everything that belongs to a person is sealed, one file each, wrapped with
    KEK: for installations on one machine. Never in a backup of the database: what was erased would come back with
    it. Without it and SUBJECT_KEYS_URL nothing is sealed, and an erasure cannot reach older copies of the log."""
    subject_keys_url: Annotated[SecretStr | None, About(reloads=_RELOADED)] = None
    """Instead of a directory: `postgresql://user:password@host:port/database` on a server of its own, which is not
    the log's and has backups of its own that expire within 30 days."""
    vault_address: str | None = Field(default=None, pattern=r"^https?://[^\s/?#@]+$", max_length=500)
    """HashiCorp Vault, or a server that speaks its KV version 2 API, as in `https://vault.example.com:8200`."""
    vault_mount: str = Field(default="secret", pattern=r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$", max_length=200)
    """Where the KV version 2 engine is mounted there."""
    vault_namespace: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_./-]+$", max_length=200)
    """Namespace, where the server has any."""
    vault_certificates: Path | None = None
    """PEM file of the authority that signed the server's certificate; none: the usual ones."""
    vault_token: Annotated[SecretStr | None, About(reloads="read for every request")] = None
    """A token to read with, usually kept fresh in a file by an agent beside the process."""
    vault_approle: Annotated[SecretStr | None, About(reloads="read at every login")] = None
    """Instead of a token: JSON with `role_id` and `secret_id`, to log in with."""
    vault_ttl_seconds: float = Field(default=60.0, ge=1, le=86_400)
    """How long a value from the vault is used before it is read again."""
    vault_timeout_seconds: float = Field(default=5.0, gt=0, le=60)
    """Bound of one request to the vault; three are tried."""
