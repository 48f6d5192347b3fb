"""A log that was restored goes on once it is stated by its key, and by nothing that one without the key can do."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from codeagent.messages.log_events import LogRestored
from codeagent.telemetry import metrics
from codeagent.transparency.anchoring import Anchorer
from codeagent.transparency.checkpoints import Checkpoint, Cut, open_checkpoint
from codeagent.transparency.directory import DirectoryAnchor, anchor_files, newest_kept
from codeagent.transparency.sealer import Sealer, SealRefused
from codeagent.transparency.topic import TopicAnchor
from tests.integration.transparency.published import Published, audit, verify
from tests.integration.transparency.sealed import FOREIGN_KEY, KEY, KEYS, ORIGIN, newest
from tests.services.postgres import PostgresCluster

TakeBack = Callable[[], Awaitable[None]]
STATED = ("restored", "--kept", "3", "--signed", "5")
FROM_TOPIC = "--anchors-from-topic"
TO_THE_STATEMENT = (
    "DELETE FROM events WHERE global_position NOT IN (SELECT global_position FROM audit_leaves WHERE leaf_index < 4)",
    "DELETE FROM audit_leaves WHERE leaf_index >= 4",
    "DELETE FROM audit_checkpoints WHERE tree_size > 4",
    "UPDATE audit_tiles SET hashes = substring(hashes FROM 1 FOR 128)",
)
BEFORE_IT = tuple(each.replace("4", "3").replace("128", "96") for each in TO_THE_STATEMENT)


@pytest.fixture
async def restored(published: Published, take_back: TakeBack) -> Published:
    """Of five entries that the topic knows of, the database has three."""
    await published.anchorer.anchor()
    await published.relay()
    await take_back()
    return published


@pytest.fixture
def strike(postgres_18: PostgresCluster, newest_database_url: str) -> Callable[..., Awaitable[None]]:
    """What one may do who has the database, and not the key."""

    async def act(*statements: str) -> None:
        connection = await asyncpg.connect(postgres_18.superuser_url(newest_database_url.rsplit("/", 1)[1]))
        await connection.execute("SET session_replication_role = replica")
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    return act


async def go_on(published: Published, count: int) -> None:
    """A relay that was started anew reads the topic, seals and publishes."""
    sealer = Sealer(published.database, KEYS, awaits=["topic"])
    topic = TopicAnchor(published.database, published.connection)
    published.sealer = sealer
    published.anchorer = Anchorer(published.database, topic, KEYS, sealer.heard)
    await published.anchorer.anchor()
    await published.grow(count)
    await published.anchorer.anchor()
    await published.relay()


async def test_what_is_missing_is_told_and_nothing_is_stated_without_its_numbers(restored: Published) -> None:
    told = await audit("restored")
    assert told.exit_code == 3, told.output
    assert "SHORTER: entries 3 to 4 were signed, and are not in the log" in told.stdout
    assert "codeagent audit restored --kept 3 --signed 5" in told.stdout
    wrong = await audit("restored", "--kept", "3", "--signed", "900")
    assert (wrong.exit_code, "which is --kept 3 --signed 5" in wrong.stderr) == (2, True), wrong.output
    assert (await newest(restored.database)).size == 3


async def test_a_stated_restore_goes_on_and_is_named_by_every_verification(restored: Published) -> None:
    done = await audit(*STATED)
    assert done.exit_code == 0, done.output
    stored = open_checkpoint((await newest(restored.database)).note, ORIGIN, [KEY.verifier])
    assert (stored.size, [(cut.kept, cut.signed) for cut in stored.cuts]) == (4, [(3, 5)])
    [fact] = await restored.database.fetch("SELECT data FROM events WHERE event_type = $1", LogRestored.NAME)
    assert b'"signed":5' in fact["data"]

    await go_on(restored, 3)
    done = await verify(FROM_TOPIC)
    assert done.exit_code == 0, done.output
    assert "RESTORED: 5 entries were signed, and it is stated that the log goes on from 3 of them" in done.stdout
    assert "log verified: 7 entries, " in done.stdout
    assert "1 of those of what was given up" in done.stdout
    told = await audit("restored")
    assert (told.exit_code, "the log has all that was signed" in told.stdout) == (0, True), told.output


async def test_a_log_that_is_cut_after_a_stated_restore_is_found_wherever_it_is_cut(
    restored: Published, strike: Callable[..., Awaitable[None]]
) -> None:
    await audit(*STATED)
    await go_on(restored, 1)  # five entries, as many as were signed before the restore
    for statements, length in ((TO_THE_STATEMENT, 4), (BEFORE_IT, 3)):
        await strike(*statements)
        done = await verify(FROM_TOPIC)
        assert done.exit_code == 1, done.output
        told = rf"FAILED log_truncated at record 0/\d of the topic: it covers 5 entries, and the log has {length}\n"
        assert re.search(told, done.stdout), done.output
        with pytest.raises(SealRefused, match=f"it had 5 entries and has {length}"):
            await go_on(restored, 1)


async def test_nobody_states_a_restore_with_the_fact_alone_or_another_key(
    restored: Published, strike: Callable[..., Awaitable[None]]
) -> None:
    stored = await newest(restored.database)
    signed = open_checkpoint(stored.note, ORIGIN, [KEY.verifier])
    known = await TopicAnchor(restored.database, restored.connection).newest(KEYS)
    assert known is not None
    forged = Checkpoint(ORIGIN, 3, signed.root, (Cut(3, 5, known.root),))
    text, _, signatures = stored.note.partition("\n\n")
    for note in (forged.signed([FOREIGN_KEY]), f"{text}\n{forged.cuts[0]}\n\n{signatures}"):
        await strike(f"UPDATE audit_checkpoints SET note = '{note}'")
        done = await verify(FROM_TOPIC)
        assert done.exit_code == 1, done.output
        assert "log_truncated at record 0/0 of the topic" in done.stdout
        assert "RESTORED" not in done.stdout
        assert (await audit(*STATED)).exit_code == 1


async def test_what_the_restored_log_still_has_must_hold(
    restored: Published, strike: Callable[..., Awaitable[None]]
) -> None:
    await strike("UPDATE events SET data = '{}' WHERE global_position = 2")
    done = await audit(*STATED)
    assert (done.exit_code, "FAILED data_changed at entry 1" in done.stdout) == (1, True), done.output
    assert "nothing is stated" in done.stdout
    assert (await newest(restored.database)).size == 3


async def test_what_vouches_for_nothing_holds_up_no_statement(restored: Published) -> None:
    junk = replace(await newest(restored.database), note=Checkpoint(ORIGIN, 900, bytes(32)).signed([FOREIGN_KEY]))
    await TopicAnchor(restored.database, restored.connection).keep(junk)
    await restored.relay()
    done = await audit(*STATED)
    assert done.exit_code == 0, done.output
    assert "passed by: checkpoint_unknown_key at record 0/1 of the topic" in done.stdout


async def test_a_restore_from_before_a_stated_restore_is_stated_as_well(
    restored: Published, strike: Callable[..., Awaitable[None]]
) -> None:
    await audit(*STATED)
    await go_on(restored, 6)
    await strike(*BEFORE_IT)
    told = await audit("restored")
    assert "--kept 3 --signed 10" in told.stdout, told.output
    assert (await audit("restored", "--kept", "3", "--signed", "10")).exit_code == 0
    await go_on(restored, 1)
    done = await verify(FROM_TOPIC)
    assert (done.exit_code, done.stdout.count("RESTORED: ")) == (0, 2), done.output


async def test_files_of_what_was_given_up_stay_where_they_are(restored: Published, tmp_path: Path) -> None:
    directory = DirectoryAnchor(tmp_path)
    known = await TopicAnchor(restored.database, restored.connection).newest(KEYS)
    assert known is not None
    (tmp_path / f"{5:020d}.checkpoint").write_text(known.signed([KEY]))
    await audit(*STATED, "--anchors", str(tmp_path))
    sealer = Sealer(restored.database, KEYS)
    anchorer = Anchorer(restored.database, directory, KEYS, sealer.heard)
    restored.sealer = sealer
    assert await anchorer.anchor()
    await restored.grow(1)
    assert await anchorer.anchor()
    names = [f"{4:020d}.1.checkpoint", f"{5:020d}.1.checkpoint", f"{5:020d}.checkpoint"]
    assert [path.name for path in anchor_files(tmp_path)] == names
    kept = newest_kept(tmp_path, KEYS)
    assert kept is not None
    assert kept.order == (1, 5)
    assert metrics.AUDIT_JUNK.labels("directory")._value.get() == 0
    done = await verify("--anchors", str(tmp_path))
    assert done.exit_code == 0, done.output
