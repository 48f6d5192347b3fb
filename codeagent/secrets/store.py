"""The secrets of a process as they are at this moment: read at start, read again when they change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from codeagent.secrets.references import Given, InFile, InVariable, InVault, Reference, SecretUnavailable, read_here
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

LOOK_EVERY_SECONDS = 0.5
HURRY_AT_MOST_EVERY_SECONDS = 5.0
SETTLED_AFTER_NS = 100_000_000
"""A file written a moment ago may be written once more under the same stamp: it is read again."""

Stamp = tuple[int, int, int]
Changed = Callable[[], Awaitable[None]]


class VaultReader(Protocol):
    """Reads the fields of a secret. Raises `SecretUnavailable`. `fresh` looks past what is kept."""

    ttl_seconds: float

    async def read(self, path: str, *, fresh: bool = False) -> Mapping[str, str]: ...

    async def close(self) -> None: ...


class SecretStore:
    """Secrets by name. What cannot be read again stays as it was, and is logged without its value.

    `get` does no I/O. Files are looked at twice a second, the vault is asked when its time to live has passed.
    """

    def __init__(
        self,
        references: Mapping[str, Reference],
        vault: VaultReader | None = None,
        *,
        look_every_seconds: float = LOOK_EVERY_SECONDS,
    ) -> None:
        self._references = dict(references)
        self._vault = vault
        self._look_every = look_every_seconds
        self._values: dict[str, str] = {}
        self._stamps: dict[str, Stamp | None] = {}
        self._watchers: dict[str, list[Changed]] = {}
        self._hurry = asyncio.Event()
        self._hurried = -HURRY_AT_MOST_EVERY_SECONDS
        self._tasks: list[asyncio.Task[None]] = []

    def load_here(self) -> dict[str, SecretUnavailable]:
        """Reads everything but what is in the vault. Returns what could not be had, by name."""
        failures: dict[str, SecretUnavailable] = {}
        for name, reference in self._references.items():
            if isinstance(reference, InVault):
                continue
            try:
                stamp = _stamp(reference)
                self._values[name] = read_here(reference)
                self._stamps[name] = stamp if _is_settled(stamp) else None
            except SecretUnavailable as error:
                failures[name] = error
        return failures

    async def load(self) -> dict[str, SecretUnavailable]:
        """Reads everything, each path of the vault once. Returns what could not be had, by name."""
        failures = self.load_here()
        for name, reference in self._in_vault().items():
            try:
                self._values[name] = await self._from_vault(reference)
            except SecretUnavailable as error:
                failures[name] = error
        return failures

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str) -> str:
        """The secret of the moment. Raises `SecretUnavailable` when it never could be read."""
        try:
            return self._values[name]
        except KeyError:
            raise SecretUnavailable(f"there is no secret for {name}") from None

    def values(self) -> dict[str, str]:
        """What is known now, by name."""
        return dict(self._values)

    def watch(self, name: str, changed: Changed) -> None:
        """Awaits `changed` after each change. Its errors are logged, and undo nothing."""
        self._watchers.setdefault(name, []).append(changed)

    def hurry(self) -> None:
        """Asks for a look at the vault now: somebody was refused with what it gave before."""
        if time.monotonic() - self._hurried >= HURRY_AT_MOST_EVERY_SECONDS:
            self._hurried = time.monotonic()
            self._hurry.set()

    async def start(self) -> None:
        if any(isinstance(reference, InFile) for reference in self._references.values()):
            self._tasks.append(asyncio.create_task(self._watch_files()))
        if self._in_vault():
            self._tasks.append(asyncio.create_task(self._watch_vault()))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._vault is not None:
            await self._vault.close()

    async def _watch_files(self) -> None:
        while True:
            await asyncio.sleep(self._look_every)
            await self._look_at_files()

    async def _look_at_files(self) -> None:
        for name, reference in self._references.items():
            if not isinstance(reference, InFile):
                continue
            stamp = _stamp(reference)
            if stamp == self._stamps.get(name):
                continue
            try:
                value = read_here(reference)
            except SecretUnavailable as error:
                # Once a state of the file: a broken one is told, not repeated twice a second.
                self._stamps[name] = stamp
                log.error("secret.unreadable", setting=name, error=error.detail)
                continue
            self._stamps[name] = stamp if _is_settled(stamp) and _stamp(reference) == stamp else None
            await self._take(name, value)

    async def _watch_vault(self) -> None:
        assert self._vault is not None
        while True:
            try:
                async with asyncio.timeout(self._vault.ttl_seconds):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            self._hurry.clear()
            await self._look_at_vault()

    async def _look_at_vault(self) -> None:
        fresh: set[str] = set()
        for name, reference in self._in_vault().items():
            try:
                value = await self._from_vault(reference, fresh=reference.path not in fresh)
                fresh.add(reference.path)
            except SecretUnavailable as error:
                log.error("secret.unreadable", setting=name, error=error.detail)
                continue
            await self._take(name, value)

    def _in_vault(self) -> dict[str, InVault]:
        return {name: reference for name, reference in self._references.items() if isinstance(reference, InVault)}

    async def _from_vault(self, reference: InVault, *, fresh: bool = False) -> str:
        if self._vault is None:
            raise SecretUnavailable("there is no vault: CODEAGENT_VAULT_ADDRESS is not set")
        fields = await self._vault.read(reference.path, fresh=fresh)
        value = fields.get(reference.field, "")
        if not value:
            raise SecretUnavailable(f"the vault's {reference.path} has no field {reference.field}")
        return value

    async def _take(self, name: str, value: str) -> None:
        if self._values.get(name) == value:
            return
        self._values[name] = value
        log.info("secret.reloaded", setting=name)
        for changed in self._watchers.get(name, ()):
            try:
                await changed()
            except Exception:
                log.exception("secret.not_taken_over", setting=name)


def _stamp(reference: Given | InVariable | InFile) -> Stamp | None:
    """What changes when a file does, also when another one takes its name; None where there is none."""
    if not isinstance(reference, InFile):
        return None
    try:
        found = reference.path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _is_settled(stamp: Stamp | None) -> bool:
    return stamp is not None and time.time_ns() - stamp[0] > SETTLED_AFTER_NS
