"""The sealer: every event becomes one entry, in order, whoever races or dies; what contradicts itself is not signed."""

from __future__ import annotations

import asyncio
import random

import asyncpg
import pytest

from codeagent.errors import OutcomeUnknown
from codeagent.eventlog.database import Database
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.telemetry import metrics
from codeagent.transparency import tables
from codeagent.transparency.checkpoints import open_checkpoint
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.reading import StoredTree
from codeagent.transparency.sealer import Sealer, SealRefused
from tests.conftest import SEED
from tests.integration.projections.logs import write_at_once
from tests.integration.transparency.conftest import Tamper
from tests.integration.transparency.sealed import (
    FOREIGN_KEY,
    KEY,
    KEYS,
    NEXT_KEY,
    ORIGIN,
    append_runs,
    leaves,
    newest,
    run_of,
    seal_all,
)
from tests.unit.transparency import reference


async def test_every_event_is_an_entry_once_in_the_order_of_the_log(database: Database) -> None:
    sealer = Sealer(database, KEYS, most=7)
    for _ in range(3):
        await append_runs(database, 1, 5, 3)
        await seal_all(database, sealer)
    rows = await database.fetch(
        """SELECT l.leaf_index, row_number() OVER (ORDER BY e.transaction_id, e.global_position) - 1 AS place,
                  l.event_id = e.event_id AS named
           FROM audit_leaves l JOIN events e USING (global_position) ORDER BY l.leaf_index"""
    )
    assert [tuple(row) for row in rows] == [(number, number, True) for number in range(27)]
    assert await sealer.seal() == 0


async def test_a_checkpoint_is_the_signed_root_of_all_entries(database: Database) -> None:
    sealer = Sealer(database, KEYS, most=100)
    for count in (1, 255, 1, 300, 87):  # fills a tile to the brim, begins one, runs over one
        await append_runs(database, count)
        await seal_all(database, sealer)
        stored = await newest(database)
        expected = reference.mth(await leaves(database))
        signed = open_checkpoint(stored.note, ORIGIN, [KEY.verifier])
        assert (signed.size, signed.root, stored.root) == (stored.size, expected, expected)
    found = await tables.tiles(database, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)])
    assert {tile: len(hashes) // 32 for tile, hashes in found.items()} == {
        (0, 0): 256,
        (0, 1): 256,
        (0, 2): 132,
        (1, 0): 2,
    }


async def test_earlier_checkpoints_are_the_beginning_of_later_ones(database: Database) -> None:
    sealer, seen = Sealer(database, KEYS), []
    for count in (3, 260, 2):
        await append_runs(database, count)
        await seal_all(database, sealer)
        seen.append(open_checkpoint((await newest(database)).note, ORIGIN, [KEY.verifier]))
    for older in seen:
        await StoredTree(database).check_continues(older, seen[-1])


async def test_sealers_that_race_while_events_are_appended_leave_none_out(database: Database) -> None:
    draw, done = random.Random(SEED), asyncio.Event()
    sealers = [Sealer(database, KEYS, most=5) for _ in range(3)]

    async def append() -> None:
        for _ in range(12):
            try:
                async with database.transaction() as connection:
                    await connection.execute("SELECT pg_current_xact_id()")
                    await asyncio.sleep(draw.random() / 50)
                    await write_at_once(database, run_of(draw.randint(1, 4)))
                    if draw.random() < 0.3:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                pass

    async def seal(sealer: Sealer) -> None:
        while not done.is_set():
            await sealer.seal()
            await asyncio.sleep(draw.random() / 100)

    sealing = [asyncio.create_task(seal(sealer)) for sealer in sealers]
    await asyncio.gather(*(append() for _ in range(4)))
    done.set()
    await asyncio.gather(*sealing)
    await seal_all(database, sealers[0])
    assert (await newest(database)).root == reference.mth(await leaves(database))
    [row] = await database.fetch("SELECT count(*), count(DISTINCT event_id) FROM audit_leaves")
    [events] = await database.fetch("SELECT count(*) FROM events")
    assert row[0] == row[1] == events[0]


async def test_a_transaction_that_commits_late_is_waited_for(database: Database, database_url: str) -> None:
    sealer, slow = Sealer(database, KEYS), await asyncpg.connect(database_url)
    holding = slow.transaction()
    await holding.start()
    await slow.execute("SELECT pg_current_xact_id()")
    await append_runs(database, 2)
    assert await sealer.seal() == 0
    await holding.commit()
    await slow.close()
    await seal_all(database, sealer)
    assert (await newest(database)).size == 2


async def test_a_seal_that_dies_half_way_leaves_nothing_behind(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealer = Sealer(database, KEYS)
    await append_runs(database, 3)
    await seal_all(database, sealer)
    await append_runs(database, 4)
    with monkeypatch.context() as patch:
        patch.setattr(tables, "write_checkpoint", dies)
        with pytest.raises(OutcomeUnknown):
            while not await sealer.seal():
                await asyncio.sleep(0.005)
    assert (await newest(database)).size == await tables.leaf_count(database) == 3
    await seal_all(database, Sealer(database, KEYS))
    assert (await newest(database)).root == reference.mth(await leaves(database))


async def dies(*_: object) -> None:
    raise ConnectionResetError


CONTRADICTIONS = (
    ("UPDATE audit_tiles SET hashes = overlay(hashes PLACING '\\x00' FROM 5) WHERE level = 0", "contradict"),
    ("UPDATE audit_tiles SET hashes = substring(hashes FROM 1 FOR 64) WHERE level = 0", "not whole"),
    ("DELETE FROM audit_tiles", "not whole"),
    ("DELETE FROM audit_checkpoints WHERE number = 2", "more or fewer"),
    ("TRUNCATE audit_checkpoints", "more or fewer"),
    ("DELETE FROM audit_leaves WHERE leaf_index = 4", "more or fewer"),
    ("INSERT INTO audit_leaves SELECT 5, 1000, gen_random_uuid()", "more or fewer"),
    ("UPDATE audit_checkpoints SET note = replace(note, E'\\n5\\n', E'\\n6\\n')", "does not hold"),
    ("UPDATE audit_checkpoints SET root = sha256(root)", "not filed"),
    ("UPDATE audit_checkpoints SET note = 'gone'", "not a note"),
)  # fmt: skip


async def test_a_log_that_contradicts_its_checkpoint_is_not_continued(database: Database, tamper: Tamper) -> None:
    sealer = Sealer(database, KEYS)
    for count in (3, 2):
        await append_runs(database, count)
        await seal_all(database, sealer)
    kept = ("audit_leaves", "audit_tiles", "audit_checkpoints")
    for table in kept:
        await tamper(f"CREATE TABLE kept_{table} AS SELECT * FROM {table}")
    await append_runs(database, 1)
    for attack, reason in CONTRADICTIONS:
        await tamper(attack)
        metrics.AUDIT_REFUSED.labels("sealer").set(0)
        with pytest.raises(SealRefused, match=reason):
            await Sealer(database, KEYS).seal()
        assert metrics.AUDIT_REFUSED.labels("sealer")._value.get() == 1
        assert await tables.newest_checkpoint(database, 6) is None
        for table in kept:
            await tamper(f"TRUNCATE {table}")
            await tamper(f"INSERT INTO {table} SELECT * FROM kept_{table}")
    await seal_all(database, sealer)
    assert metrics.AUDIT_REFUSED.labels("sealer")._value.get() == 0


async def test_a_log_that_was_taken_back_is_not_continued_by_who_has_seen_it(
    database: Database, tamper: Tamper
) -> None:
    sealer = Sealer(database, KEYS)
    for count in (3, 2):
        await append_runs(database, count)
        await seal_all(database, sealer)
    for statement in (
        "DELETE FROM audit_leaves WHERE leaf_index >= 3",
        "DELETE FROM audit_checkpoints WHERE number = 2",
        "UPDATE audit_tiles SET hashes = substring(hashes FROM 1 FOR 96)",
    ):
        await tamper(statement)
    with pytest.raises(SealRefused, match="it had 5 entries and has 3"):
        await sealer.seal()


async def test_a_checkpoint_of_another_key_is_not_continued(database: Database) -> None:
    stranger = LogKeys(ORIGIN, (FOREIGN_KEY,), (FOREIGN_KEY.verifier,))
    await append_runs(database, 1)
    await seal_all(database, Sealer(database, stranger))
    with pytest.raises(SealRefused, match="no key that is known"):
        await Sealer(database, KEYS).seal()


async def test_an_event_that_does_not_match_its_hash_is_sealed_as_it_is_and_named(
    database: Database, tamper: Tamper
) -> None:
    await append_runs(database, 3)
    await tamper("UPDATE events SET data = '{}' WHERE stream_version = 2")
    await tamper("ALTER TABLE events DROP CONSTRAINT events_leaf_hash_check")
    await tamper("UPDATE events SET leaf_hash = '\\x00' WHERE stream_version = 3")
    before = metrics.AUDIT_FINDINGS._value.get()
    await seal_all(database, Sealer(database, KEYS))
    assert metrics.AUDIT_FINDINGS._value.get() == before + 2
    assert (await newest(database)).size == 3


async def test_a_new_key_signs_beside_the_old_one(database: Database) -> None:
    sealer = Sealer(database, KEYS)
    await append_runs(database, 1)
    await seal_all(database, sealer)
    sealer.use(LogKeys(ORIGIN, (NEXT_KEY, KEY), (NEXT_KEY.verifier, KEY.verifier)))
    await append_runs(database, 1)
    await seal_all(database, sealer)
    for key in (KEY, NEXT_KEY):
        assert open_checkpoint((await newest(database)).note, ORIGIN, [key.verifier]).size == 2
    rows = await database.fetch("SELECT verifier_key FROM audit_keys")
    assert {row[0] for row in rows} == {str(KEY.verifier), str(NEXT_KEY.verifier)}
    with pytest.raises(ValueError, match="keeps its name"):
        sealer.use(LogKeys("elsewhere.example", (KEY,), (KEY.verifier,)))


CHANGES = (
    "UPDATE audit_leaves SET leaf_index = 7",
    "DELETE FROM audit_leaves",
    "TRUNCATE audit_leaves",
    "UPDATE audit_checkpoints SET note = ''",
    "DELETE FROM audit_checkpoints",
    "TRUNCATE audit_checkpoints",
    "UPDATE audit_tiles SET hashes = sha256(hashes)",
    "UPDATE audit_tiles SET tile_index = 7",
    "DELETE FROM audit_tiles",
    "TRUNCATE audit_tiles",
)


async def test_the_programs_themselves_may_only_add_to_it(database: Database, database_url: str) -> None:
    await append_runs(database, 1)
    await seal_all(database, Sealer(database, KEYS))
    edge = Database(database_url, connections=1, role=EDGE_ROLE)
    for statement in CHANGES:
        for who in (database, edge):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await who.write(statement)
    await edge.close()
