"""How the command line finds the system: environment first, then the data directory of this machine."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

CONNECTION_FILE = "connection.json"
SETTINGS_FILE = "settings.json"


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the edge is and the key for it."""

    url: str
    api_key: str


class NotConnected(Exception):
    """No running system could be found; the text says what to do."""


def find_connection(data_dir: Path) -> Connection:
    """Raises `NotConnected`."""
    url, key = os.environ.get("CODEAGENT_URL"), os.environ.get("CODEAGENT_API_KEY")
    if url and key:
        return Connection(url.rstrip("/"), key)
    path = data_dir / CONNECTION_FILE
    try:
        found = json.loads(path.read_text())
        return Connection(url or found["url"], key or found["api_key"])
    except (OSError, ValueError, KeyError):
        raise NotConnected(
            f"No connection in {path}. Start the system with `codeagent up`, name its directory "
            "with --data-dir, or set CODEAGENT_URL and CODEAGENT_API_KEY."
        ) from None
