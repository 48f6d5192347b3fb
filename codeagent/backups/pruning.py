"""Removes backups that are too old, and of the archive what none of the others needs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from codeagent.backups.repository import Repository
from codeagent.backups.wal import segments_in


@dataclass(frozen=True, slots=True)
class Pruned:
    labels: list[str]
    segments: int


def prune(repository: Repository, before: datetime, keep: int) -> Pruned:
    """Removes backups that were taken before a moment, but never the newest `keep`. Raises `Unavailable`
    (`data_dir_in_use`), and `Rejected` (`backup_unreadable`) before it removes anything."""
    lock = repository.prepare()
    try:
        repository.remove_left_overs()
        backups = [repository.read(label) for label in repository.labels()]
        old = [each for each in backups[: max(len(backups) - keep, 0)] if each.taken_at < before]
        for backup in old:
            repository.remove(backup.label)
        left = [each for each in backups if each not in old]
        if not left:
            return Pruned([each.label for each in old], 0)
        size, first = left[0].segment_bytes, min(each.first_segment for each in left)
        unneeded = [each for each in segments_in(repository.wal, size) if each.number < first]
        for segment in unneeded:
            (repository.wal / segment.name(size)).unlink()
        return Pruned([each.label for each in old], len(unneeded))
    finally:
        lock.release()
