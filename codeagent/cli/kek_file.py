"""The file of key-encryption keys, and the change from one key to the next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from codeagent.cli.operate import FAILED, load_settings, say
from codeagent.cli.secrets import database_address, open_secrets
from codeagent.cli.subject_keys import subject_keys
from codeagent.embedded.directories import write_atomically
from codeagent.encryption import SecretBox, new_key_line, parse_keys
from codeagent.eventlog.database import SERVICE_ROLE, Database
from codeagent.eventlog.sealed import SEALED_COLUMNS, Resealed, SealedColumn, reseal
from codeagent.settings import Misconfigured, Problem
from codeagent.settings.about import variable

KEK_FILE = "kek"
"""Its name in a data directory."""


def add_key(path: Path, line: str, *, first: bool) -> None:
    """Adds a key's line to a file, which is made (mode 0600) where there is none. Raises `ValueError` for a name that
    is there already, and `OSError`."""
    lines = path.read_text().splitlines() if path.exists() else []
    lines = [line, *lines] if first else [*lines, line]
    SecretBox(parse_keys(lines))
    write_atomically(path, "".join(f"{each}\n" for each in lines), durable=True)


def own_keys(data_dir: Path) -> Path:
    """The key file of a data directory, made at the first call."""
    path = data_dir / KEK_FILE
    if not path.exists():
        add_key(path, new_key_line("first"), first=True)
    return path


async def reseal_all(data_dir: Path | None, columns: Sequence[SealedColumn] = SEALED_COLUMNS) -> int:
    """Reseals every sealed column, and says which keys are still needed. 0 when that is the first one alone."""
    settings = load_settings(data_dir)
    secrets = await open_secrets("", settings)
    try:
        if "kek" not in secrets:
            raise Misconfigured([Problem(variable("kek"), "is not set", "there is nothing to seal with")])
        keys = parse_keys(secrets.get("kek").splitlines())
        database = Database(database_address(secrets), connections=2, name="codeagent-reseal", role=SERVICE_ROLE)
        try:
            found = await reseal(database, SecretBox(keys), columns)
        finally:
            await database.close()
        subjects = subject_keys(settings, secrets, SecretBox(keys))
        if subjects.in_use:
            say(f"keys of subjects: {await subjects.rewrap_all()} wrapped again")
        await subjects.close()
    finally:
        await secrets.stop()
    return _report(found, next(iter(keys)))


def _report(found: list[Resealed], first: str) -> int:
    needed: set[str] = set()
    for column in found:
        needed |= column.by_key.keys()
        where = f"{column.column.table}.{column.column.column}"
        say(f"{where}: {column.resealed} resealed, {column.by_key.total()} sealed, {column.unreadable} unreadable")
    others = sorted(needed - {first})
    say(f"still needed beside {first}: {', '.join(others) or 'no key'}")
    return FAILED if others or any(column.unreadable for column in found) else 0
