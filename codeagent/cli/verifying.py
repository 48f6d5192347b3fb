"""The whole log verified, and what is kept from it, problems written as they are found."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import structlog

from codeagent.cli.databases import command_database
from codeagent.cli.kafka import kafka_connection
from codeagent.cli.operate import FAILED, guarded, load_settings, say
from codeagent.cli.secrets import open_secrets, with_secrets
from codeagent.cli.transparency import log_keys
from codeagent.projections.verification import ProjectionVerification
from codeagent.settings import Misconfigured, Problem, Settings
from codeagent.settings.about import variable
from codeagent.transparency.checkpoints import Cut
from codeagent.transparency.directory import anchor_files
from codeagent.transparency.exports import ExportCheck
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.topic import published_witnesses
from codeagent.transparency.verification import LogVerification
from codeagent.transparency.witnesses import Found, kept_witnesses

_MOST_LAST_LINE = 1 << 20
QUERY_SECONDS = 3600.0
"""Bound of one query; the longest sorts the index of all streams."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to verify, and by what."""

    first: int
    last: int | None
    anchors: Path | None
    kept: Sequence[Path]
    keys: Path | None
    projections: bool
    from_topic: bool = False


async def find_keys(settings: Settings, text: str | None) -> LogKeys:
    """The keys of a file's text, else those of the setting. Raises `Misconfigured`."""
    if text is not None:
        return log_keys(text)
    secrets = await open_secrets("", settings, ("audit_signing_key",))
    await secrets.stop()
    if "audit_signing_key" not in secrets:
        raise Misconfigured([Problem(variable("audit_signing_key"), "is not set", "give the log's keys with --keys")])
    return log_keys(secrets.get("audit_signing_key"))


def verify(data_dir: Path, wanted: Wanted) -> int:
    """Returns the exit status."""
    text = None if wanted.keys is None else wanted.keys.read_text()

    async def verified() -> int:
        settings = load_settings(data_dir)
        keys = await find_keys(settings, text)
        kept = await kept_elsewhere(settings, keys, wanted.anchors, wanted.kept, from_topic=wanted.from_topic)
        async with command_database(
            settings, name="codeagent-verify", role=None, timeout_seconds=QUERY_SECONDS
        ) as database:
            async with database.transaction() as connection:
                # One state of the database throughout, however long it takes.
                await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                found = await _tell(LogVerification(connection, keys, kept, wanted.first, wanted.last), len(kept))
            if wanted.projections:
                found += await _tell_kept(ProjectionVerification(database))
            return FAILED if found else 0

    return guarded(verified())


async def kept_elsewhere(
    settings: Settings, keys: LogKeys, anchors: Path | None, files: Sequence[Path], *, from_topic: bool
) -> list[Found]:
    """What was kept outside the database. Raises `Unavailable` where the topic was asked for and cannot be read: a log
    that was held against less than it should be is not verified."""
    folder = anchors or settings.audit_anchor_dir
    kept = list(kept_witnesses([*files, *(anchor_files(folder) if folder is not None else ())], keys))
    return kept + (await kept_in_topic(settings, keys) if from_topic else [])


async def kept_in_topic(settings: Settings, keys: LogKeys) -> list[Found]:
    """Raises `Unavailable`."""
    connection = kafka_connection(await with_secrets(settings, "kafka_password"), "codeagent-verify")
    return [found async for found in published_witnesses(connection, keys)]


def tell_restores(cuts: Sequence[Cut]) -> None:
    """Whoever reads it has to know of each: one who has the log's key can state one that never was."""
    for cut in cuts:
        say(
            f"RESTORED: {cut.signed} entries were signed, and it is stated that the log goes on from {cut.kept} of them"
        )


async def _tell(verification: LogVerification, kept: int) -> int:
    """Returns how many problems there are."""
    count = 0
    async for finding in verification.findings():
        count += 1
        say(f"FAILED {finding}")
    tell_restores(verification.cuts)
    checked = f"{verification.entries} entries, {verification.checkpoints} checkpoints, {kept} of them kept elsewhere"
    if verification.given_up:
        checked += f" and {verification.given_up} of those of what was given up"
    if count:
        sys.stderr.write(f"codeagent: {count} problems in {checked}\n")
    else:
        say(f"log verified: {checked}; {verification.waiting} events are not sealed yet")
    return count


async def _tell_kept(verification: ProjectionVerification) -> int:
    count = 0
    with _quiet():
        async for finding in verification.findings():
            count += 1
            say(f"FAILED {finding}")
    if count:
        sys.stderr.write(f"codeagent: {count} problems in projections\n")
        return count
    verified = ", ".join(verification.verified) or "none"
    waiting = f"; not begun: {', '.join(verification.not_begun)}" if verification.not_begun else ""
    say(f"projections verified: {verified}, of {verification.events} events{waiting}")
    return 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Whoever folds the log says of each event that cannot be read; here that was named before."""
    former = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**former)


def verify_export(data_dir: Path, export: Path, keys: Path | None) -> int:
    """Returns the exit status. Needs the file and the keys, and no database where the keys are a file."""

    async def verified() -> int:
        text = None if keys is None else keys.read_text()  # noqa: ASYNC240  nothing else is at work
        check = ExportCheck(log_keys(text) if text is not None else await find_keys(load_settings(data_dir), None))
        count = 0
        with export.open("rb") as file:
            last = _last_line(file)
            file.seek(0)
            for finding in check.findings(file, last):
                count += 1
                say(f"FAILED {finding}")
        if count:
            sys.stderr.write(f"codeagent: {count} problems in {check.lines} lines\n")
            return FAILED
        say(
            f"export verified: {check.lines} lines, {check.unproved} of them not sealed when they were exported, "
            f"{check.withheld} without all of their data"
        )
        return 0

    return guarded(verified())


def _last_line(file: BinaryIO) -> bytes:
    file.seek(max(file.seek(0, os.SEEK_END) - _MOST_LAST_LINE, 0))
    return file.read().rstrip(b"\n").rpartition(b"\n")[2]
