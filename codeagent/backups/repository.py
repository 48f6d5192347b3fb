"""A directory of backups: base backups by the moment they were taken, and the write-ahead log that was archived.

DIR/backups/20261127T162003Z/backup.json    what it is of, and how far it goes by itself
DIR/backups/20261127T162003Z/cluster/       the files of PostgreSQL, with their manifest
DIR/wal/                                    the archive; one for all backups
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from codeagent.backups.wal import Coverage, Segment, Timeline, WalArchive, covered, parse_position, segments_in
from codeagent.embedded.directories import DirectoryLock, make_directory
from codeagent.errors import NotFound, Rejected

_LABEL = re.compile(r"\d{8}T\d{6}Z")
_RECORD, _FILES = "backup.json", "cluster"


class Layout(StrEnum):
    """Where PostgreSQL's files belong: below a data directory of `codeagent up`, or wherever its operator has them."""

    EMBEDDED = "embedded"
    SERVER = "server"


class Backup(BaseModel):
    """A base backup as it was taken. What it says of events was so when it began: it has them, and more."""

    model_config = ConfigDict(frozen=True)

    label: str
    layout: Layout
    release: str
    taken_at: AwareDatetime
    """When it was whole, by the server's clock: the earliest moment that it can be restored to."""
    bytes: int
    postgres: str
    major: int
    system_identifier: str
    segment_bytes: int
    timeline: int
    start: str
    end: str
    """Places in the write-ahead log: replay begins at `start`, and has to come to `end`."""
    database: str
    superuser: str
    schema_version: str | None
    last_event: str | None
    """Its place, as `events tail` tells it."""
    last_event_at: AwareDatetime | None
    entries: int
    """How many of the events were sealed."""
    outside: dict[str, str]
    """Files of the server's settings that lie outside its directory and are not in the backup, by their setting."""
    is_verified: bool

    @property
    def first_segment(self) -> int:
        return parse_position(self.start) // self.segment_bytes


class Repository:
    """One installation's backups."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "backups"
        self.wal = root / "wal"

    def prepare(self) -> DirectoryLock:
        """Makes what is missing of it, and takes the lock that one who changes it holds. Raises `Unavailable`."""
        for path in (self.root, self.folder):
            make_directory(path)
        self.folder.chmod(0o700)
        lock = DirectoryLock(self.root)
        lock.acquire()
        return lock

    def remove_left_overs(self) -> None:
        """What a backup or a removal that was ended has left; nobody else is at work while one has the lock."""
        for path in self.folder.glob(".*"):
            shutil.rmtree(path)

    def remove(self, label: str) -> None:
        """Not listed any more before the first of its files goes."""
        hidden = self.folder / f".{label}"
        (self.folder / label).rename(hidden)
        shutil.rmtree(hidden)

    def files(self, label: str) -> Path:
        return self.folder / label / _FILES

    def record(self, label: str) -> Path:
        return self.folder / label / _RECORD

    def labels(self) -> list[str]:
        """Those of all backups, the oldest first."""
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(path.name for path in paths if _LABEL.fullmatch(path.name))

    def read(self, label: str) -> Backup:
        """Raises `NotFound` (`backup_not_found`) and `Rejected` (`backup_unreadable`)."""
        if label not in self.labels():
            raise NotFound(f"{self.root} has no backup {label}", code="backup_not_found")
        path = self.record(label)
        try:
            return Backup.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            why = error.strerror if isinstance(error, OSError) else f"{error.error_count()} values are wrong"
            raise Rejected(f"{path} cannot be read: {why}", code="backup_unreadable") from None

    def timelines(self, backup: Backup) -> dict[int, Timeline]:
        """Those that what is in the backup is a part of, by their numbers."""
        known = {backup.timeline: Timeline(backup.timeline), **WalArchive(self.wal, backup.segment_bytes).timelines()}
        end = parse_position(backup.end)
        return {number: each for number, each in known.items() if each.descends_from(backup.timeline, end)}

    def coverage(self, backup: Backup, timeline: Timeline) -> Coverage:
        """What can be replayed on top of the backup: it brings the segments that it needs itself."""
        archived = WalArchive(self.wal, backup.segment_bytes).segments()
        there = archived | segments_in(self.files(backup.label) / "pg_wal", backup.segment_bytes)
        return covered(backup.first_segment, timeline, there, backup.segment_bytes)

    def segment_file(self, backup: Backup, segment: Segment) -> Path:
        """Where a segment is: in the archive, else in the backup."""
        name = segment.name(backup.segment_bytes)
        archived = self.wal / name
        return archived if archived.exists() else self.files(backup.label) / "pg_wal" / name


def chosen(
    repository: Repository, label: str | None, at: datetime | None, timeline: int | None
) -> tuple[Backup, Timeline]:
    """The backup to restore, and the timeline to follow: the newest that leads there, unless they are named.

    Raises `NotFound` (`backup_not_found`, `before_first_backup`, `timeline_unknown`) and `Rejected`.
    """
    labels = repository.labels() if label is None else [label]
    if not labels:
        raise NotFound(f"there is no backup in {repository.root}", code="backup_not_found")
    backups = [repository.read(each) for each in labels]
    fitting = [each for each in backups if at is None or each.taken_at <= at]
    if not fitting:
        earliest = min(each.taken_at for each in backups)
        raise NotFound(f"the earliest moment to restore to is {earliest.isoformat()}", code="before_first_backup")
    number = timeline or max(max(repository.timelines(each)) for each in fitting)
    return _newest(repository, fitting, number)


def _newest(repository: Repository, backups: Sequence[Backup], number: int) -> tuple[Backup, Timeline]:
    for backup in reversed(backups):
        if found := repository.timelines(backup).get(number):
            return backup, found
    raise NotFound(f"no backup of that time leads to timeline {number}", code="timeline_unknown")
