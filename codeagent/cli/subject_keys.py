"""Where the keys of subjects are, by the settings."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from codeagent.encryption import SecretBox, parse_keys
from codeagent.errors import Unavailable
from codeagent.eventlog.database import Database
from codeagent.secrets.store import SecretStore
from codeagent.settings import Misconfigured, Problem, Settings
from codeagent.settings.about import variable
from codeagent.subjects.directory import KeyDirectory
from codeagent.subjects.keys import SubjectKeys
from codeagent.subjects.postgres import KeyDatabase
from codeagent.subjects.store import KeyStore

KEYS_DIRECTORY = "subject-keys"
"""Its name in a data directory."""


def sealing_box(secrets: SecretStore) -> SecretBox | None:
    """What seals with the key-encryption keys of the moment; None where there are no keys."""
    if "kek" not in secrets:
        return None
    box = SecretBox(parse_keys(secrets.get("kek").splitlines()))

    async def changed() -> None:
        box.use(parse_keys(secrets.get("kek").splitlines()))

    secrets.watch("kek", changed)
    return box


def subject_keys(settings: Settings, secrets: SecretStore, box: SecretBox | None) -> SubjectKeys:
    """Raises `Misconfigured` where there is a store of keys and nothing to wrap them with."""
    store = _store(settings.subject_keys_dir, secrets)
    if store is not None and box is None:
        raise Misconfigured([Problem(variable("kek"), "is not set", "subjects' keys are wrapped with it")])
    return SubjectKeys(store, box)


async def check_keys(database: Database) -> None:
    """Raises `Misconfigured` where the store is not the one that the log's newest content was sealed with: an empty one
    would be given other keys under the same names. Says nothing where the database is away, or shows no events."""
    try:
        [made] = await database.fetch("SELECT to_regclass('public.events') IS NOT NULL")
        rows = await database.fetch(_NEWEST) if made[0] else ()
    except Unavailable:
        return
    if not rows:
        return
    wrong = "is not set, and content of the log is sealed"
    if database.subjects.in_use:
        if not (await database.subjects.named([rows[0]["key_id"]]))[rows[0]["key_id"]].lost:
            return
        wrong = "does not know the key that the newest content of the log is sealed with"
    raise Misconfigured([Problem(variable("subject_keys_dir"), wrong, "name the store that belongs to this log")])


_NEWEST = """SELECT key_id FROM events WHERE key_id IS NOT NULL
    ORDER BY transaction_id DESC, global_position DESC LIMIT 1"""


def _store(folder: Path | None, secrets: SecretStore) -> KeyStore | None:
    if "subject_keys_url" in secrets:
        return KeyDatabase(partial(secrets.get, "subject_keys_url"))
    return None if folder is None else KeyDirectory(folder)
