"""The sandbox driver of an unprivileged worker: asks the helper of this machine, and finds it again after a restart."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codeagent.sandboxes.protocol import (
    DEFAULT_TOOLCHAIN,
    ExecRecord,
    ExecSpec,
    GitCredential,
    IsolationLevel,
    Limits,
    OutputSink,
    Patch,
    ProbeReport,
    Reason,
    SandboxFailure,
    SandboxUnavailable,
    Toolchain,
    Workspace,
)
from codeagent.sandboxes.sandboxd.asking import ask, lost
from codeagent.sandboxes.sandboxd.link import Link, Session
from codeagent.sandboxes.sandboxd.wire import MOST_BODY_BYTES
from codeagent.sandboxes.sandboxd.words import Answer, read_patch, read_record, read_report, spec_words
from codeagent.sandboxes.streams import discard
from codeagent.sandboxes.uninterrupted import to_the_end

_ANSWER_SECONDS = 120.0
"""What an operation may take beside the time limit it has: the helper is not believed to end it."""
_PROOF_SECONDS = 60.0
_FINGERPRINT_SECONDS = 10.0


@dataclass(frozen=True, eq=False, slots=True)
class RemoteWorkspace:
    """A workspace that the helper has, by the number that one session knows it under."""

    id: str
    name: str
    handle: int
    session: Session


class RemoteDriver:
    """See `OfferedDriver`. Isolation is what the helper at `socket_path` has proven, `minimum_level` or better, by the
    driver of the name `only`, if that is given.

    `first_seconds` bounds how long the first `probe` waits for it. Where the helper is gone, operations fail as
    retryable (`helper_lost`); those that begin then wait `patience_seconds` for the next one. What is asked of the
    helper is never awaited for ever.
    """

    def __init__(
        self,
        socket_path: Path,
        minimum_level: IsolationLevel,
        only: str | None = None,
        *,
        patience_seconds: float = 10.0,
        first_seconds: float = 60.0,
        proof_seconds: float = _PROOF_SECONDS,
    ) -> None:
        self.name = "unconnected"
        self.level = IsolationLevel.NONE
        self.reaches_out = False
        self._minimum = minimum_level
        self._only = only
        self._patience_seconds = patience_seconds
        self._first_seconds = first_seconds
        self._proof_seconds = proof_seconds
        self._link = Link(socket_path, self._accept)
        self._report: ProbeReport | None = None
        self._fingerprint = ""

    @property
    def ready(self) -> bool:
        """Whether the helper is there."""
        return self._link.session is not None

    async def probe(self, *, again: bool = False) -> ProbeReport:
        """What the helper has proven, connecting first; the answer is remembered until it is asked for `again`. Raises
        `SandboxUnavailable` if no helper is reached in time, or its proof fails."""
        if self._report is not None and not again:
            return self._report
        try:
            session = await self._link.reached(self._patience_seconds if self._report else self._first_seconds)
            if again:
                words, _ = await self._ask(session, {"operation": "prove"}, within_seconds=self._proof_seconds)
                self._accept(read_report(words), self.reaches_out)
        except SandboxFailure as failure:
            raise self._link.fault or SandboxUnavailable([failure.detail]) from failure
        assert self._report is not None  # since a session begins with one
        return self._report

    async def fingerprint(self) -> str:
        """As the helper's driver has it. While the helper is gone nothing is known to have changed; the next one has
        proven itself when it comes. One that does not answer has no fingerprint: ""."""
        session = self._link.session
        if session is None:
            return self._fingerprint
        try:
            words, _ = await self._ask(session, {"operation": "fingerprint"}, within_seconds=_FINGERPRINT_SECONDS)
        except SandboxFailure:
            return self._fingerprint if session.is_lost else ""
        self._fingerprint = str(words["fingerprint"])
        return self._fingerprint

    async def open(
        self,
        workspace_id: str,
        archive: Path,
        patch: bytes,
        limits: Limits,
        toolchain: Toolchain = DEFAULT_TOOLCHAIN,
    ) -> Workspace:
        given, needed = {"image": toolchain.image, "dependencies": toolchain.dependencies is not None}, [archive]
        if toolchain.dependencies is not None:
            needed.append(toolchain.dependencies)
        with _opened(needed) as handles:
            session = await self._reached()
            words = {"operation": "open", "workspace": workspace_id, "limits": asdict(limits), **given}
            try:
                header, _ = await self._ask(session, words, patch, handles, within_seconds=_longest(limits))
            except asyncio.CancelledError:
                # It may be there all the same, under a number that was on its way.
                await to_the_end(self._take_back(session, workspace_id))
                raise
        return RemoteWorkspace(workspace_id, str(header["name"]), int(header["handle"]), session)

    async def _take_back(self, session: Session, workspace_id: str) -> None:
        with suppress(SandboxFailure):  # with the helper the workspace is gone
            await self._ask(session, {"operation": "take_back", "workspace": workspace_id})

    async def run(self, workspace: Workspace, spec: ExecSpec, sink: OutputSink) -> ExecRecord:
        return await self._commanded("run", workspace, spec, sink)

    async def install(self, workspace: Workspace, spec: ExecSpec, destination: Path, sink: OutputSink) -> ExecRecord:
        with _replaced(destination) as (handle, keep):
            record = await self._commanded("install", workspace, spec, sink, [handle])
            if record.reason is Reason.OK:
                keep()
        return record

    async def _commanded(
        self, operation: str, workspace: Workspace, spec: ExecSpec, sink: OutputSink, handles: Sequence[int] = ()
    ) -> ExecRecord:
        told = {"stdout": bytearray(), "stderr": bytearray()}

        async def keep(stream: str, piece: bytes) -> None:
            told[stream] += piece
            await sink(stream, piece)

        words, within = {"operation": operation, **spec_words(spec)}, _longest(spec.limits)
        answer = await self._ask_of(workspace, words, spec.stdin, keep, within_seconds=within, handles=handles)
        return read_record(*answer, told)

    async def read_file(self, workspace: Workspace, path: str, limit_bytes: int) -> bytes:
        words = {"operation": "read_file", "path": path, "limit_bytes": min(limit_bytes, MOST_BODY_BYTES)}
        return (await self._ask_of(workspace, words))[1]

    async def write_file(self, workspace: Workspace, path: str, data: bytes) -> None:
        await self._ask_of(workspace, {"operation": "write_file", "path": path}, data)

    async def diff(self, workspace: Workspace, limits: Limits) -> Patch:
        words = {"operation": "diff", "limits": asdict(limits)}
        return read_patch(*await self._ask_of(workspace, words, within_seconds=_longest(limits)))

    async def close(self, workspace: Workspace) -> None:
        if isinstance(workspace, RemoteWorkspace) and not workspace.session.is_lost:
            await self._ask_of(workspace, {"operation": "close"})

    async def reap(self, keep: frozenset[str]) -> int:
        """Of this worker's own session: the helper itself removes what dead ones left."""
        header, _ = await self._ask(await self._reached(), {"operation": "reap", "keep": sorted(keep)})
        return int(header["removed"])

    async def fetch(
        self, url: str, ref: str, destination: Path, limits: Limits, credential: GitCredential | None = None
    ) -> None:
        username, token = ("", "") if credential is None else (credential.username, credential.token)
        named = {"url": url, "ref": ref, "username": username, "token": token}
        words = {"operation": "fetch", **named, "limits": asdict(limits)}
        session = await self._reached()
        with _replaced(destination) as (handle, keep):
            await self._ask(session, words, handles=[handle], within_seconds=_longest(limits))
            keep()

    async def shutdown(self) -> None:
        """Leaves the helper, which closes every workspace of this worker. The driver can be used again afterwards."""
        await self._link.close()

    def _accept(self, report: ProbeReport, reaches_out: bool) -> None:
        if report.level < self._minimum:
            raise SandboxUnavailable([f"the helper isolates at level {report.level:d}, not {self._minimum:d}"])
        if self._only not in (None, report.driver):
            raise SandboxUnavailable([f"the helper's driver is {report.driver}, not {self._only}"])
        self._report = report
        self.name, self.level, self.reaches_out = report.driver, report.level, reaches_out

    async def _reached(self) -> Session:
        return await self._link.reached(self._patience_seconds)

    async def _ask_of(
        self,
        workspace: Workspace,
        words: Mapping[str, Any],
        body: bytes = b"",
        sink: OutputSink = discard,
        within_seconds: float = _ANSWER_SECONDS,
        handles: Sequence[int] = (),
    ) -> Answer:
        if not isinstance(workspace, RemoteWorkspace):
            raise SandboxFailure("the workspace is closed", reason="closed", retryable=False)
        if workspace.session.is_lost:
            raise lost("the workspace ended with the sandbox helper that had it")
        words = {**words, "handle": workspace.handle}
        return await self._ask(workspace.session, words, body, handles, sink, within_seconds)

    async def _ask(
        self,
        session: Session,
        words: Mapping[str, Any],
        body: bytes = b"",
        handles: Sequence[int] = (),
        sink: OutputSink = discard,
        within_seconds: float = _ANSWER_SECONDS,
    ) -> Answer:
        return await ask(session.connection, words, body, handles, sink, within_seconds)


@contextmanager
def _opened(paths: Sequence[Path]) -> Iterator[list[int]]:
    """Descriptors that can be read from. Raises `SandboxFailure`."""
    with ExitStack() as files:
        try:
            handles = [files.enter_context(path.open("rb")).fileno() for path in paths]
        except OSError as error:
            raise SandboxFailure(f"an archive cannot be read: {error.strerror}") from error
        yield handles


@contextmanager
def _replaced(destination: Path) -> Iterator[tuple[int, Callable[[], object]]]:
    """A descriptor to be written to, and what puts the file in its place once it is whole. Raises `SandboxFailure`."""
    temporary = destination.with_name(f".{destination.name}.{secrets.token_hex(6)}")
    try:
        with temporary.open("xb") as file:
            yield file.fileno(), lambda: temporary.replace(destination)
    except OSError as error:
        raise SandboxFailure(f"the archive cannot be kept: {error.strerror}", reason="fetch_failed") from error
    finally:
        temporary.unlink(missing_ok=True)


def _longest(limits: Limits) -> float:
    return limits.wall_seconds + _ANSWER_SECONDS
