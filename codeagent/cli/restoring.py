"""What `codeagent db restore` does: it restores, verifies, and tells what is not there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from codeagent.backups.examination import Examination, Lost
from codeagent.backups.repository import Layout, Repository
from codeagent.backups.restoring import Plan, Restored, Wanted, plan_restore, require_known_schema, restored
from codeagent.backups.tables import LogState, log_state
from codeagent.cli.backing_up import moment, size, told
from codeagent.cli.log_key_file import LOG_KEY_FILE
from codeagent.cli.operate import FAILED, load_settings, say
from codeagent.cli.restored import CHECKPOINTS, lend_keys, note_restore
from codeagent.cli.transparency import log_keys
from codeagent.cli.up_settings import LOG_KEY_VARIABLES, is_named
from codeagent.cli.verifying import find_keys, kept_in_topic, tell_restores
from codeagent.embedded.binaries import postgres_programs
from codeagent.errors import CodeAgentError, InvalidInput
from codeagent.eventlog.migrations import HEAD
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.witnesses import Found

SHORTER = 3
"""Exit status: restored, and it holds, and something that was signed is not in it."""


@dataclass(frozen=True, slots=True)
class Order:
    """A restore as typed."""

    source: Path
    to: Path
    at: str | None
    label: str | None
    timeline: int | None
    incomplete: bool
    keys: Path | None
    anchors: Path | None
    from_topic: bool
    keys_from: Path | None
    verify: bool
    bin_dir: Path | None


@dataclass(slots=True)
class Outcome:
    state: LogState
    problems: int = 0
    entries: int = 0
    lost: Lost | None = None

    @property
    def status(self) -> int:
        return FAILED if self.problems else SHORTER if self.lost is not None else 0


def restore_database(order: Order) -> int:
    """Returns the exit status."""
    return told(_restore(order))


async def _restore(order: Order) -> int:
    wanted = Wanted(
        order.to.absolute(), _moment(order.at), order.label, order.timeline, order.incomplete, order.bin_dir
    )
    repository = Repository(order.source.absolute())
    with _programs_folder() as folder:
        plan = plan_restore(repository, wanted, partial(postgres_programs, folder))
        keys = await _keys(order, plan)
        published = await _published(order, keys)
        backup = plan.backup
        say(
            f"restoring {backup.label} ({size(backup.bytes)}, PostgreSQL {backup.postgres}) to "
            f"{moment(wanted.at) if wanted.at else 'the end of the archive'}, on timeline {plan.timeline.number}"
        )
        async with restored(repository, wanted, plan) as result:
            if backup.layout is Layout.EMBEDDED:
                # Before anything else: what stops while it is looked at must not begin with keys of its own.
                note_restore(wanted.target, {"backup": backup.label})
            outcome = await _examined(order, result, keys, published)
    if plan.backup.layout is Layout.EMBEDDED:
        _finish(order, wanted, plan, outcome)
    say(_next(plan, wanted.target))
    return outcome.status


@contextmanager
def _programs_folder() -> Iterator[Path]:
    """Where the bundled programs are copied to, should the server's own account not reach them."""
    with tempfile.TemporaryDirectory(prefix="codeagent-programs-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


def _moment(text: str | None) -> datetime | None:
    """Raises `InvalidInput` for what is none, or could be several for want of a time zone."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        detail = f"--at {text} is no moment with a time zone, as in 2026-11-27T03:00:00Z"
        raise InvalidInput(detail, code="malformed_moment")
    return found


async def _keys(order: Order, plan: Plan) -> LogKeys | None:
    """Those that the log is verified by. Raises `InvalidInput` where there are none, before anything is done."""
    if order.keys_from is not None and not order.keys_from.is_dir():
        raise InvalidInput(f"{order.keys_from} is no data directory", code="keys_missing")
    if not order.verify:
        return None
    lent = None if order.keys_from is None else order.keys_from / LOG_KEY_FILE
    for path in (order.keys, lent if lent is not None and lent.exists() else None):
        if path is not None:
            try:
                return log_keys(path.read_text())
            except OSError as error:
                raise InvalidInput(f"{path} cannot be read: {error.strerror}", code="keys_missing") from None
    if is_named(LOG_KEY_VARIABLES):
        return await find_keys(load_settings(None), None)
    raise InvalidInput("give the log's keys with --keys, to verify it by, or --no-verify", code="keys_missing")


async def _published(order: Order, keys: LogKeys | None) -> list[Found]:
    """What the topic keeps. Raises `InvalidInput`, `Unavailable` before anything is done."""
    if not order.from_topic:
        return []
    if keys is None:
        raise InvalidInput("--anchors-from-topic is to verify by: not with --no-verify", code="keys_missing")
    return await kept_in_topic(load_settings(None), keys)


async def _examined(order: Order, result: Restored, keys: LogKeys | None, published: list[Found]) -> Outcome:
    if result.unused:
        say(f"NOT REPLAYED: {result.unused} segments of the archive, behind one that is missing or damaged")
    state = await log_state(result.database)
    outcome = Outcome(state)
    last = result.replayed.last or "before the backup"
    say(f"restored, and timeline {result.replayed.timeline} begun; last transaction: {last}")
    say(f"last event: {state.last_event or 'none'} of {moment(state.last_event_at)}")
    try:
        require_known_schema(state.schema)
        older = "" if state.schema == HEAD else f"; `codeagent db upgrade` brings it to {HEAD}"
        say(f"schema {state.schema or 'none'}{older}")
    except CodeAgentError as error:
        outcome.problems += 1
        say(f"FAILED {error.code}: {error.detail}")
    if keys is None:
        say("log NOT verified, as you asked")
    elif state.schema is not None and state.schema != HEAD:
        outcome.problems += 1
        say("log NOT verified, since its schema is another: run `codeagent db upgrade`, and `codeagent audit verify`")
    elif state.schema is not None:
        await _verified(Examination(result.database, keys, _anchors(order), published), order, outcome)
    return outcome


def _anchors(order: Order) -> Path | None:
    if order.anchors is not None or order.keys_from is None:
        return order.anchors
    return order.keys_from / CHECKPOINTS


async def _verified(examination: Examination, order: Order, outcome: Outcome) -> None:
    async for finding in examination.findings():
        outcome.problems += 1
        say(f"FAILED {finding}")
    tell_restores(examination.cuts)
    outcome.entries, outcome.lost = examination.entries, examination.lost
    checked = (
        f"{examination.entries} entries, {examination.checkpoints} checkpoints, {examination.kept} of them kept "
        f"elsewhere; {examination.waiting} events are not sealed yet"
    )
    say(f"log FAILED: {outcome.problems} problems in {checked}" if outcome.problems else f"log verified: {checked}")
    if examination.anchors is None and not order.from_topic:
        say(
            "not held against kept checkpoints: whether something newer was signed is not known (--anchors, "
            "--anchors-from-topic)"
        )
    elif examination.lost is not None:
        lost = examination.lost
        perhaps = f", unless they are among the {examination.waiting} not sealed yet" if examination.waiting else ""
        say(
            f"SHORTER: entries {lost.first} to {lost.end - 1}, signed in a checkpoint that was kept at "
            f"{moment(lost.kept_at)}, are not in it{perhaps}"
        )


def _finish(order: Order, wanted: Wanted, plan: Plan, outcome: Outcome) -> None:
    if order.keys_from is not None:
        lend_keys(order.keys_from, wanted.target, outcome.state.entries)
    note_restore(
        wanted.target,
        {
            "backup": plan.backup.label,
            "to": None if wanted.at is None else wanted.at.isoformat(),
            "last_event": None if outcome.state.last_event is None else str(outcome.state.last_event),
            "entries": outcome.entries,
            "entries_lost": 0 if outcome.lost is None else outcome.lost.end - outcome.lost.first,
        },
    )


def _next(plan: Plan, target: Path) -> str:
    steps = "keys, artifacts, topics and what was revoked or erased since: see docs/backups.md"
    if plan.backup.layout is Layout.EMBEDDED:
        return f"next: {steps}; then codeagent up --data-dir {target}"
    files = "".join(f", {name} (was {path})" for name, path in plan.backup.outside.items())
    return f"next: {steps}{files}; then start PostgreSQL {plan.backup.major} on {target}"
