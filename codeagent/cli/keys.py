"""API keys from a file, read again when it changes."""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import TypeAdapter

from codeagent.identity.keys import KeyRing
from codeagent.identity.principal import Principal
from codeagent.settings import ApiKeyEntry
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

LOOK_EVERY_SECONDS = 1.0


def load_keys(path: Path) -> KeyRing:
    """Raises `ValueError` or `OSError` when the file is not a list of key entries."""
    entries = TypeAdapter(list[ApiKeyEntry]).validate_json(path.read_bytes())
    return KeyRing(
        {
            entry.sha256: Principal(entry.tenant_id, entry.principal_id, entry.key_id, scopes=entry.scopes)
            for entry in entries
        }
    )


class FileKeys:
    """Without a file there are none. A file that cannot be read leaves the keys as they were, and is logged."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._ring = KeyRing({}) if path is None else load_keys(path)
        self._accepted: set[str] = set()
        self._stamp = self._stat()
        self._looked = time.monotonic()

    def _stat(self) -> tuple[int, int]:
        if self._path is None:
            return 0, 0
        try:
            found = self._path.stat()
        except OSError:
            return 0, 0
        return found.st_mtime_ns, found.st_size

    async def authenticate(self, key: str) -> Principal | None:
        self._look()
        principal = self._ring.authenticate(key)
        if principal is not None:
            self._accepted.add(principal.credential_id)
        return principal

    def still_valid(self, principal: Principal) -> bool:
        """Whether a key that was accepted is still in the file, and may do the same. Other credentials are not its
        concern."""
        self._look()
        return principal.credential_id not in self._accepted or self._ring.knows(principal)

    def _look(self) -> None:
        now = time.monotonic()
        if self._path is not None and now - self._looked > LOOK_EVERY_SECONDS:
            self._looked = now
            stamp = self._stat()
            if stamp != self._stamp:
                self._reload(self._path, stamp)

    def _reload(self, path: Path, stamp: tuple[int, int]) -> None:
        try:
            self._ring = load_keys(path)
            self._stamp = stamp
            log.info("keys.reloaded")
        except (OSError, ValueError) as error:
            log.error("keys.unreadable", error=type(error).__name__)
