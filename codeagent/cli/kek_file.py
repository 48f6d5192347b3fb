"""The file of key-encryption keys of a data directory."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from codeagent.embedded.directories import write_atomically
from codeagent.encryption import new_key_line
from codeagent.settings import Settings

KEK_FILE = "kek"
"""Its name in a data directory."""


def own_keys(data_dir: Path) -> Path:
    """The key file of a data directory, made at the first call."""
    path = data_dir / KEK_FILE
    if not path.exists():
        write_atomically(path, f"{new_key_line('first')}\n", durable=True)
    return path


def with_keys(settings: Settings, data_dir: Path) -> Settings:
    """The settings with the keys that they name, else with those of the data directory."""
    return settings.model_copy(update={"kek": settings.kek or SecretStr(own_keys(data_dir).read_text())})
