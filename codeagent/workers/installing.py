"""Has what a run's files depend on: recalled by what decides it, else installed now and kept for the runs to come."""

from __future__ import annotations

import asyncio
import platform
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from codeagent.artifacts.disk import explained
from codeagent.messages.executions import Installed
from codeagent.messages.values import Dependencies
from codeagent.sandboxes import archives
from codeagent.sandboxes.protocol import (
    ExecRecord,
    ExecSpec,
    Limits,
    OutputSink,
    Reason,
    SandboxDriver,
    SandboxFailure,
    Verdict,
    Workspace,
)
from codeagent.workers.exec_facts import excerpt
from codeagent.workers.held import Held, HeldWorkspaces, Place
from codeagent.workers.storing import until_stored
from codeagent.workers.toolbox import ToolOutcome

LOCK_FILE_BYTES = 16 << 20
_SCHEME = b"dependencies 1"
"""Of keys. With another one all that is remembered is installed again."""
_OUT_OF_REACH = (Verdict.UNRESOLVED, Verdict.UNREACHABLE)

Recall = Callable[[str, str], Awaitable[str | None]]
"""The archive that a tenant has under a key, if it is remembered."""


async def nothing(_tenant_id: str, _key: str) -> str | None:
    """Of a worker that remembers nothing."""
    return None


@dataclass(frozen=True, slots=True)
class Registries:
    """What commands that install may reach, as `name:port`, and what was installed before."""

    hosts: tuple[str, ...] = ()
    recall: Recall = nothing


NO_REGISTRIES = Registries()


class Kept(Protocol):
    """Of the artifact store, what an installer asks for."""

    async def size(self, tenant_id: str, digest: str) -> int | None: ...

    async def put_file(self, tenant_id: str, path: Path) -> tuple[str, int]: ...


class Installer:
    """Installs in workspaces of a driver, each in the place of its run's own."""

    def __init__(self, driver: SandboxDriver, store: Kept, workspaces: HeldWorkspaces, registries: Registries) -> None:
        self._driver = driver
        self._store = store
        self._workspaces = workspaces
        self._registries = registries

    async def lock_files(self, workspace: Workspace, dependencies: Dependencies) -> dict[str, bytes]:
        """As they are now. Raises `SandboxFailure` (`lock_file_unusable`)."""
        found = {}
        for name in dependencies.lock_files:
            try:
                found[name] = await self._driver.read_file(workspace, name, LOCK_FILE_BYTES)
            except SandboxFailure as failure:
                if failure.retryable or failure.reason == "closed":
                    raise
                detail = f"the lock file {name} cannot be used: {failure.detail}"
                raise SandboxFailure(detail, reason="lock_file_unusable", retryable=False) from None
        return found

    @asynccontextmanager
    async def alone(
        self, place: Place, limits: Limits, lock_files: Mapping[str, bytes], effect_id: str
    ) -> AsyncIterator[Held]:
        """A workspace with the lock files in it and nothing else. What a command brings that sees no more depends on no
        more: nobody can leave something behind for runs to come, under a key that does not tell."""
        with explained():
            scratch = tempfile.TemporaryDirectory(prefix="codeagent-lock-files-")
        with scratch as folder:
            archive = Path(folder) / "lock-files.tar.gz"

            async def load() -> tuple[Path, bytes, Path | None]:
                await asyncio.to_thread(archives.pack_files, lock_files, archive, limits)
                return archive, b"", None

            async with self._workspaces.at(place, limits, load, "install", effect_id) as held:
                yield held
        await self._workspaces.drop(place.run_id)

    async def recalled(self, tenant_id: str, key: str) -> Installed | None:
        """What is remembered under that key, and still there."""
        digest = await self._registries.recall(tenant_id, key)
        size = None if digest is None else await self._store.size(tenant_id, digest)
        return None if digest is None or size is None else _installed(key, digest, size, recalled=True)

    def spec(self, dependencies: Dependencies, limits: Limits) -> ExecSpec:
        # All that it may write is kept: the log names the whole of it.
        bounded = replace(limits, output_kept_bytes=limits.output_hard_bytes)
        return ExecSpec(("/bin/bash", "-c", dependencies.install), limits=bounded, egress=self._registries.hosts)

    async def install(
        self, workspace: Workspace, tenant_id: str, key: str, spec: ExecSpec, sink: OutputSink
    ) -> tuple[ToolOutcome, Installed | None]:
        """How the command ended, and what it brought. Raises `SandboxFailure`: what a registry out of reach has made
        fail may succeed another time."""
        with explained():
            scratch = tempfile.TemporaryDirectory(prefix="codeagent-dependencies-")
        with scratch as folder:
            archive = Path(folder) / "dependencies.tar.gz"
            record = await self._driver.install(workspace, spec, archive, sink)
            _raise_unless_told(record)
            installed = None
            if record.reason is Reason.OK:
                digest, size = await until_stored(partial(self._store.put_file, tenant_id, archive))
                installed = _installed(key, digest, size, recalled=False)
        outcome = ToolOutcome(_words(record), record.reason.value, record.exit_code, record=record, changed=False)
        return outcome, installed


def key_of(tenant_id: str, image: str, install: str, lock_files: Mapping[str, bytes]) -> str:
    """The digest of all that decides what an installation brings. It is another one for each tenant: nobody is given
    what a stranger has installed."""
    seen = sha256()
    named = [part for name, data in sorted(lock_files.items()) for part in (name.encode(), data)]
    for part in (_SCHEME, tenant_id.encode(), image.encode(), _machine().encode(), install.encode(), *named):
        # Each with its length: no two lists of parts read the same.
        seen.update(len(part).to_bytes(8, "big") + part)
    return f"sha256:{seen.hexdigest()}"


def _machine() -> str:
    """What compiled files are made for: the processor, the C library, the Python of sandboxes without an image."""
    return " ".join((platform.machine(), *platform.libc_ver(), sys.implementation.cache_tag or ""))


def _installed(key: str, digest: str, size_bytes: int, *, recalled: bool) -> Installed:
    return Installed(key=key, dependencies=digest, size_bytes=size_bytes, recalled=recalled)


def _raise_unless_told(record: ExecRecord) -> None:
    if record.reason is Reason.SANDBOX_ERROR:
        raise SandboxFailure(record.detail or "the command could not be started")
    lost = sorted({f"{seen.host}:{seen.port}" for seen in record.egress if seen.verdict in _OUT_OF_REACH})
    if record.reason is not Reason.OK and lost:
        detail = f"registries could not be reached: {', '.join(lost)}\n{_words(record)}"
        raise SandboxFailure(detail, reason="registry_unreachable")


def _words(record: ExecRecord) -> str:
    """The beginning and the end of what the command said, and which limits it ran into."""
    said = excerpt(b"\n".join(text for text in (record.stdout.rstrip(b"\n"), record.stderr.rstrip(b"\n")) if text))
    return said if not record.limits_hit else f"{said}\n[limits hit: {', '.join(record.limits_hit)}]"
