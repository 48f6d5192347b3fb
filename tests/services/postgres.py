"""Real PostgreSQL servers for tests, with one migrated template and a fresh clone of it for each test."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from codeagent.embedded.postgres import EmbeddedPostgres

_TEMPLATE = "template_migrated"
_OWNER = "codeagent"
# Tests never pull the plug on the machine, and a commit keeps its meaning against a killed server.
_SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "512MB"}
_INSTALLED = ("/usr/lib/postgresql/{0}/bin", "/usr/pgsql-{0}/bin", "/opt/homebrew/opt/postgresql@{0}/bin")


def installed_programs(major: int) -> Path | None:
    """The `bin` directory of a PostgreSQL that the machine's packages installed, or None."""
    candidates = (Path(pattern.format(major)) for pattern in _INSTALLED)
    return next((path for path in candidates if (path / "initdb").exists()), None)


class PostgresCluster:
    """One server in a temporary directory; `bin_dir` None means the bundled binaries."""

    def __init__(self, bin_dir: Path | None = None) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="codeagent-postgres-"))
        # The server's own account must be able to get in when the tests run as root.
        self._directory.chmod(0o711)
        self.server = EmbeddedPostgres(self._directory / "postgres", bin_dir, settings=_SETTINGS)
        self._template_is_ready = False

    def start(self) -> PostgresCluster:
        self.server.start()
        return self

    def version(self) -> str:
        """The version as the server reports it, such as `18.6`."""
        return self.sql("SHOW server_version").split()[0]

    def prepare_template(self, migrate: Callable[[str], object]) -> None:
        """Calls `migrate(url)` on an empty database, once; every later `new_database` is a copy of the result."""
        if self._template_is_ready:
            return
        self.sql(f"CREATE DATABASE {_TEMPLATE} OWNER {_OWNER}")
        try:
            migrate(self.url(_TEMPLATE))
        except BaseException:
            self.drop_database(self.url(_TEMPLATE))
            raise
        self._template_is_ready = True

    def new_database(self) -> str:
        """A database of its own, owned by the application's role; returns `postgresql://...`."""
        name = f"test_{uuid.uuid4().hex}"
        template = _TEMPLATE if self._template_is_ready else "template1"
        self.sql(f"CREATE DATABASE {name} OWNER {_OWNER} TEMPLATE {template}")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Removes a database made by `new_database`, and whoever is still connected to it."""
        self.sql(f"DROP DATABASE IF EXISTS {urlsplit(url).path.lstrip('/')} WITH (FORCE)")

    def url(self, database: str) -> str:
        """The address of a database under the application's role."""
        address = self.server.address
        return f"postgresql://{address.user}:{address.password}@{address.host}:{address.port}/{database}"

    def superuser_url(self, database: str = "postgres") -> str:
        """The address of a database as superuser, for tests that create roles or look behind the curtain."""
        address = self.server.superuser_address
        return f"postgresql://{address.user}:{address.password}@{address.host}:{address.port}/{database}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Runs a statement as superuser through psql, which needs no event loop, and returns its bare output."""
        command = [str(self.server.bin_dir / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement]
        done = subprocess.run(
            [*command, self.superuser_url(database)], capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        return done.stdout.strip()

    def close(self) -> None:
        """Stops the server and deletes its data."""
        self.server.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> PostgresCluster:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


def server_postgres(major: int) -> PostgresCluster | None:
    """A server of that major version, not yet started: bundled binaries if they fit, else the machine's packages."""
    if major == 18:
        return PostgresCluster()
    programs = installed_programs(major)
    return PostgresCluster(programs) if programs is not None else None
