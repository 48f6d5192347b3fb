"""How the PostgreSQL of `codeagent up` archives its write-ahead log.

By `basic_archive`, which comes with PostgreSQL: a segment is written beside its name, is on the disk before it gets it,
and never takes the place of a different one. It needs no shell, and no program that the server's account cannot reach.
"""

from __future__ import annotations

import os
from pathlib import Path

from codeagent.backups.repository import Repository
from codeagent.embedded.accounts import Account, require_reachable
from codeagent.embedded.directories import make_directory

_AT_LEAST_EVERY_SECONDS = 300
"""A segment is archived at that age, full or not: what the loss of the disk costs at most."""


def archive_settings(root: Path, account: Account | None) -> dict[str, str]:
    """The settings of a server that archives into the directory of backups `root`, which it can write afterwards.

    Raises `Rejected` (`data_dir_unreachable`) where its account cannot get there.
    """
    wal = Repository(root).wal
    make_directory(wal)
    wal.chmod(0o700)
    require_reachable(wal, account)
    if account is not None and wal.stat().st_uid == 0:
        os.chown(wal, account.uid, account.gid)
    return {
        "archive_mode": "on",
        "archive_library": "basic_archive",
        "basic_archive.archive_directory": str(wal),
        "archive_timeout": str(_AT_LEAST_EVERY_SECONDS),
    }
