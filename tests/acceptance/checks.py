"""What must hold after everything that happened, whatever happened."""

from __future__ import annotations

import asyncio
import io
import re
import tarfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from codeagent import clock
from codeagent.broker.topics import RUN_COMMANDS
from codeagent.cli.client import TERMINAL, ApiError, Client, ServerEvent
from codeagent.cli.operate import check_run
from codeagent.eventlog.accept import SubmissionLedger
from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import OutboxRow
from codeagent.messages.commands import CancelRun
from codeagent.messages.envelope import Envelope
from codeagent.messages.ids import derived_uuid, run_stream, typed_id
from codeagent.subjects.keys import NoLookups
from tests.acceptance.system import System, wait_until

Result = TypeVar("Result")


@dataclass
class Watched:
    """A run as one client saw it: the ids of its durable events, in the order they came."""

    run_id: str
    ids: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def follow(self, client: Client) -> None:
        for event in client.follow(self.run_id):
            self.see(event)

    def see(self, event: ServerEvent) -> None:
        if event.id is not None:
            self.ids.append(event.id)
            self.names.append(event.name)

    def is_contiguous_to_its_end(self) -> bool:
        whole = self.ids == list(range(1, len(self.ids) + 1))
        ends = [name for name in self.names if name in TERMINAL]
        return whole and len(ends) == 1 and self.names[-1] in TERMINAL


def in_background(work: Callable[[], Result]) -> Future[Result]:
    """Runs `work` in a thread that nobody has to wait for: one that follows a run may never end."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def archive_of(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def upload(client: Client, files: dict[str, str], folder: Path) -> str:
    path = folder / "upload.tar.gz"
    path.write_bytes(archive_of(files))
    return client.upload(path)


def submit_surely(client: Client, body: dict[str, Any], key: str, patience_seconds: float = 60.0) -> str:
    """Submits until it is answered, as one would to a system that is dying and coming back. Returns the run's id."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return str(client.submit(body, key)["id"])
        except ApiError as error:
            if error.status not in {0, 503} or time.monotonic() > deadline:
                raise


def cancel_before_submit(system: System, key: str) -> None:
    """Cancels the run that `key` will name, and returns once that is a fact."""
    tenant_id, principal_id = system.caller
    run_id = typed_id("run", derived_uuid(tenant_id, principal_id, "POST /v1/runs", key))
    command = CancelRun(run_id=run_id)
    envelope = Envelope(
        id=derived_uuid(run_id, "cancel"),
        name=command.NAME,
        version=command.VERSION,
        source=f"/tenants/{tenant_id}/edge",
        time=clock.now(),
        tenant_id=tenant_id,
        key=run_id,
        correlation_id=derived_uuid(run_id, "submit"),
    )

    async def order() -> None:
        database = Database(system.database_url, connections=2)
        try:
            await SubmissionLedger(database).enqueue(OutboxRow(envelope.id, RUN_COMMANDS, envelope, command))
        finally:
            await database.close()

    asyncio.run(order())
    requested = f"SELECT 1 FROM events WHERE stream_id = '{run_stream(run_id)}'"
    wait_until(lambda: query(system.database_url, requested), 60, "the cancel to be a fact")


def added_lines(patch: str) -> list[str]:
    return re.findall(r"^\+([^+\n].*)$", patch, re.MULTILINE)


def ledgers(database_url: str, patience_seconds: float = 20.0) -> dict[str, int]:
    """Rows left in the ledgers, once they have had a moment to empty."""

    async def count() -> dict[str, int]:
        connection = await asyncpg.connect(database_url)
        try:
            tables = ("effects", "outbox")
            return {table: await connection.fetchval(f"SELECT count(*) FROM {table}") for table in tables}
        finally:
            await connection.close()

    deadline = time.monotonic() + patience_seconds
    while any((rows := asyncio.run(count())).values()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return rows


def listed(api: Client, path: str, status: str, patience_seconds: float = 20.0) -> list[dict[str, Any]]:
    """The runs in the list at `path`, once all are of that status: the list follows the log a moment later."""
    deadline = time.monotonic() + patience_seconds
    while True:
        runs: list[dict[str, Any]] = api.get(path)["items"]
        if (runs and all(run["status"] == status for run in runs)) or time.monotonic() > deadline:
            return runs
        time.sleep(0.1)


def problems_in_log(database_url: str, run_id: str) -> list[str]:
    async def check() -> list[str]:
        database = Database(database_url, connections=2, subjects=NoLookups())
        try:
            count, findings = await check_run(database, run_id)
        finally:
            await database.close()
        return [str(finding) for finding in findings] if count else ["no events"]

    return asyncio.run(check())


def query(database_url: str, statement: str) -> list[dict[str, Any]]:
    async def fetch() -> list[dict[str, Any]]:
        connection = await asyncpg.connect(database_url)
        try:
            return [dict(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    return asyncio.run(fetch())
