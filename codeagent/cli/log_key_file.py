"""The key that signs the log of a data directory."""

from __future__ import annotations

from pathlib import Path
from secrets import token_hex

from codeagent.embedded.directories import write_atomically
from codeagent.transparency.notes import SigningKey

LOG_KEY_FILE = "audit-key"
"""Its name in a data directory."""


def own_log_key(data_dir: Path) -> Path:
    """The key file of a data directory (mode 0600), made at the first call. Its name is that of this log alone."""
    path = data_dir / LOG_KEY_FILE
    if not path.exists():
        write_atomically(path, f"{SigningKey.new(f'codeagent.local/{token_hex(8)}').secret()}\n", durable=True)
    return path
