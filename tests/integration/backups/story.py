"""A database with a past: backed up, written to before and after a known moment, its write-ahead log archived."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from unittest.mock import patch

from typer.testing import CliRunner, Result

from codeagent.backups.archiving import archive_settings
from codeagent.backups.repository import Layout, Repository
from codeagent.cli.main import app
from codeagent.embedded.accounts import POSTGRES_UID, service_account
from codeagent.embedded.postgres import EmbeddedPostgres
from codeagent.embedded.spawning import run_tool
from codeagent.eventlog import migrate
from codeagent.eventlog.database import Database
from codeagent.transparency.anchoring import Anchorer
from codeagent.transparency.directory import DirectoryAnchor
from codeagent.transparency.sealer import Sealer
from tests.integration.transparency.sealed import KEY, KEYS, append_runs, seal_all

SEGMENT = 1 << 20
"""Small ones, since each is written whole."""
FIRST, THEN, LAST = 3, 4, 5
"""Events before the backup, after it, and after the moment to restore to."""


async def change(url: str, *counts: int, anchors: Path | None = None) -> datetime:
    """Appends runs with so many events, seals them, keeps the checkpoint; returns a moment after all of it."""
    database = Database(url, connections=2)
    try:
        await append_runs(database, *counts)
        await seal_all(database, Sealer(database, KEYS))
        if anchors is not None:
            await Anchorer(database, DirectoryAnchor(anchors), KEYS).anchor()
        [row] = await database.fetch("SELECT clock_timestamp()")
        moment: datetime = row[0]
        return moment
    finally:
        await database.close()


async def ask(url: str, query: str) -> object:
    database = Database(url, connections=1)
    try:
        rows = await database.fetch(query)
        return rows[0][0] if rows else None
    finally:
        await database.close()


def scratch() -> Path:
    """A directory that servers of another account can pass. In memory where there is room: what a restore brings to the
    disk each time is a minute of the disk's time in all, and the tests' machines share theirs."""
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > 2 << 30
    made = Path(tempfile.mkdtemp(prefix="codeagent-backups-", dir=memory if has_room else None))
    made.chmod(0o711)
    return made


@dataclass
class Story:
    """`layout` says how the operator names the database: as a data directory, or as a server's address."""

    layout: Layout
    bin_dir: Path | None
    state: Path = field(default_factory=scratch)
    moment: str = ""

    def __post_init__(self) -> None:
        self.data, self.anchors, self.keys = (self.state / name for name in ("data", "anchors", "keys"))
        self.data.mkdir(mode=0o711)
        self.keys.write_text(f"{KEY.verifier}\n")
        self.repository = Repository(self.state / "backups")
        self.server = self.server_of(self.data, archives=True)

    def server_of(self, data: Path, *, archives: bool) -> EmbeddedPostgres:
        """The server of a data directory. Nobody pulls the plug on it."""
        account = service_account(POSTGRES_UID, self.data)
        archiving = archive_settings(self.repository.root, account) if archives else {}
        return EmbeddedPostgres(data / "postgres", self.bin_dir, settings={**archiving, "fsync": "off"})

    def happen(self) -> None:
        self.server.start()
        self.server.stop()
        cluster = self.data / "postgres" / "cluster"
        resized = [str(self.server.bin_dir / "pg_resetwal"), f"--wal-segsize={SEGMENT >> 20}", "-D", str(cluster)]
        run_tool(resized, service_account(POSTGRES_UID, cluster))
        self.server.start()
        url = self.server.address.url
        asyncio.run(migrate.upgrade(url))
        asyncio.run(change(url, FIRST, anchors=self.anchors))
        done = self.back_up()
        assert done.exit_code == 0, done.output
        # One segment with each part of the rest.
        self.moment = asyncio.run(change(url, THEN, anchors=self.anchors)).isoformat()
        asyncio.run(ask(self.server.superuser_address.url, "SELECT pg_switch_wal()"))
        asyncio.run(change(url, LAST, anchors=self.anchors))
        assert self.server.stop()

    def back_up(self) -> Result:
        environment = {"CODEAGENT_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
        words = ["--to", str(self.repository.root)]
        if self.layout is Layout.EMBEDDED:
            words += ["--data-dir", str(self.data)]
        else:
            database = self.server.superuser_address.url.removesuffix("/postgres") + "/codeagent"
            environment["CODEAGENT_DATABASE_URL"] = database
        with patch.dict(os.environ, environment):
            return CliRunner().invoke(app, ["db", "backup", *words])

    @property
    def label(self) -> str:
        return self.repository.labels()[0]

    def target(self, name: str) -> Path:
        """The directory to name as `--to`. One of PostgreSQL's own is made before, by whom it is to belong to."""
        if self.layout is Layout.EMBEDDED:
            return self.state / name
        cluster = self.state / name / "postgres" / "cluster"
        for folder in (cluster.parent.parent, cluster.parent, cluster):
            folder.mkdir(mode=0o711, exist_ok=True)
        owner = self.repository.wal.stat()
        os.chown(cluster, owner.st_uid, owner.st_gid)
        return cluster

    def is_empty(self, name: str) -> bool:
        target = self.target(name)
        return not target.exists() or not list(target.iterdir())

    def restore(self, name: str, *words: object, source: Path | None = None, anchors: bool = True) -> Result:
        where = ["--from", source or self.repository.root, "--to", self.target(name), "--keys", self.keys]
        known = ["--anchors", self.anchors] if anchors else []
        return CliRunner().invoke(app, ["db", "restore", *map(str, [*where, *known, *words])])

    @contextmanager
    def running(self, name: str, *, archives: bool = False) -> Iterator[EmbeddedPostgres]:
        """A server on a restored directory."""
        if self.layout is Layout.SERVER:  # whose passwords are the roles' own still
            for file in (self.data / "postgres").glob("*.password"):
                shutil.copy2(file, self.state / name / "postgres")
        with self.server_of(self.state / name, archives=archives) as server:
            yield server

    def copy(self, name: str) -> Repository:
        """The backups once more, to be damaged: a file that is written to is to be replaced."""
        shutil.copytree(self.repository.root, self.state / name, copy_function=os.link)
        for path in (self.state / name / "wal", *(self.state / name / "wal").iterdir()):
            os.chown(path, self.repository.wal.stat().st_uid, -1)
        return Repository(self.state / name)

    def segments(self) -> list[str]:
        """The whole segments of the archive, the oldest first."""
        return sorted(path.name for path in self.repository.wal.iterdir() if path.stat().st_size == SEGMENT)

    def tidy(self) -> None:
        """Removes what was restored, and damaged copies."""
        for path in self.state.iterdir():
            if path.is_dir() and path not in {self.data, self.anchors, self.repository.root}:
                shutil.rmtree(path)

    def close(self) -> None:
        self.server.stop()
        shutil.rmtree(self.state, ignore_errors=True)


def flip(path: Path, place: int) -> None:
    """Puts a copy in place of a file, which has one bit that is another."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    info = path.stat()
    path.unlink()
    path.write_bytes(data)
    path.chmod(info.st_mode)
    os.chown(path, info.st_uid, info.st_gid)
