"""What a restore leaves in a data directory of `codeagent up`, and what `up` makes of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from codeagent.backups.restoring import UNFINISHED
from codeagent.cli.kek_file import KEK_FILE
from codeagent.cli.log_key_file import LOG_KEY_FILE
from codeagent.cli.subject_keys import KEYS_DIRECTORY
from codeagent.embedded.directories import make_directory, write_atomically
from codeagent.errors import Rejected
from codeagent.transparency.directory import anchor_files

RESTORED_FILE = "restored.json"
CHECKPOINTS, BEYOND = "checkpoints", "checkpoints-not-restored"


def note_restore(data_dir: Path, told: dict[str, Any]) -> None:
    write_atomically(data_dir / RESTORED_FILE, json.dumps(told, indent=2) + "\n", durable=True)


def require_finished(data_dir: Path) -> None:
    """Raises `Rejected` (`restore_unfinished`) for what a restore has left that was killed."""
    if (data_dir / UNFINISHED).exists():
        detail = f"{data_dir} is what a restore has left that did not finish: remove it, and restore again"
        raise Rejected(detail, code="restore_unfinished")


def require_key(data_dir: Path, name: str) -> None:
    """Raises `Rejected` (`restored_without_keys`) where a restored directory has not got its keys of that name yet: new
    ones open nothing of what is there, and continue no log."""
    if (data_dir / RESTORED_FILE).exists() and not (data_dir / name).exists():
        raise Rejected(
            f"{data_dir} was restored from a backup, in which no keys are: put its own {name} in, or remove "
            f"{RESTORED_FILE} to go on with a new one, which opens nothing of what is sealed there",
            code="restored_without_keys",
        )


def lend_keys(lender: Path, data_dir: Path, entries: int) -> None:
    """Copies the keys of another data directory, those of persons as they are now, and the checkpoints that it kept:
    those beyond `entries` beside the others, since the log does not continue them. What is there already stays."""
    for name in (KEK_FILE, LOG_KEY_FILE):
        if (lender / name).exists() and not (data_dir / name).exists():
            write_atomically(data_dir / name, (lender / name).read_text(), durable=True)
    if not (data_dir / KEYS_DIRECTORY).exists():
        make_directory(data_dir / KEYS_DIRECTORY)  # where nobody had written anything yet, there is none
        if (lender / KEYS_DIRECTORY).is_dir():
            shutil.copytree(lender / KEYS_DIRECTORY, data_dir / KEYS_DIRECTORY, dirs_exist_ok=True)
    for path in anchor_files(lender / CHECKPOINTS):
        is_beyond = path.name > f"{entries:020d}.checkpoint"
        folder = data_dir / (BEYOND if is_beyond else CHECKPOINTS)
        make_directory(folder)
        shutil.copy2(path, folder / path.name)
