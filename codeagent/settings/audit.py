"""The proof of the event log: what signs it, and where its checkpoints are kept out of the database's reach."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from codeagent.settings.about import About, Group


class AuditSettings(Group):
    """Proof of the event log."""

    audit_signing_key: Annotated[
        SecretStr | None, About(reloads="within a second from a file, within VAULT_TTL_SECONDS from the vault")
    ] = None
    """Keys that sign checkpoints of the log, one a line, made by `codeagent audit key`: the one in use first, former
    ones after it, of which the public line is enough. Only the relay needs it; without it nothing is sealed."""
    audit_anchor_dir: Path | None = None
    """Directory in which a file of each minute's checkpoint is made, never to be written again. Best on a disk that
    the database's administrators cannot write."""
    audit_checkpoint_days: Annotated[int, About(unit="days")] = Field(default=30, ge=1, le=3650)
    """How long every second's checkpoint of the log is kept. Of older ones the last of each hour stays, and each that
    was taken out of the database."""
