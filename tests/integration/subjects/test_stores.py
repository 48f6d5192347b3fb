"""The contract of stores of keys: in a directory, in a database of their own, and in memory for other tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from codeagent import clock
from codeagent.encryption import SecretBox
from codeagent.errors import Unavailable
from codeagent.subjects.directory import KeyDirectory
from codeagent.subjects.key import Erased
from codeagent.subjects.keys import SubjectKeys
from codeagent.subjects.postgres import KeyDatabase
from codeagent.subjects.store import KeyStore, StoredKey
from tests.integration.subject_keys import KeysInMemory
from tests.services.postgres import PostgresCluster

BOX = SecretBox({"one": bytes(range(32))})


@pytest.fixture(params=["directory", "postgres", "memory"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_18: PostgresCluster
) -> AsyncIterator[KeyStore]:
    made: KeyStore
    if request.param == "postgres":
        url = postgres_18.new_database()
        made = KeyDatabase(lambda: url)
    else:
        made = KeyDirectory(tmp_path / "keys") if request.param == "directory" else KeysInMemory()
    yield made
    await made.close()
    if request.param == "postgres":
        postgres_18.drop_database(url)


def key(number: int = 1) -> StoredKey:
    key_id = f"sk_{number:032x}"
    return StoredKey(key_id, "ten_a", f"usr_{number}", BOX.seal(bytes(32), f"subject_keys/{key_id}"), clock.now())


async def test_a_key_is_kept_as_it_was_given(store: KeyStore) -> None:
    given = key()
    assert await store.add(given) == given
    assert await store.fetch([given.id, "sk_none"]) == {given.id: given}


async def test_the_first_key_of_a_subject_stays_theirs(store: KeyStore) -> None:
    first, *others = await asyncio.gather(*(store.add(key()) for _ in range(8)))
    assert all(other == first for other in others)
    assert (await store.fetch([first.id]))[first.id] == first


async def test_a_shredded_key_leaves_a_record_and_no_bytes(store: KeyStore) -> None:
    given, at = await store.add(key()), clock.now()
    closed = await store.close_for_good(given.id, at)
    assert closed == replace(given, closed_at=at)
    later = at + timedelta(seconds=5)
    for moment in (later, later + timedelta(days=1)):
        shredded = await store.shred(given.id, moment)
        assert shredded == replace(given, wrapped=None, closed_at=at, shredded_at=later)
    assert await store.add(key()) == shredded, "nobody gets another key"
    assert await store.ids("", 10) == []


async def test_a_key_that_was_never_there_can_be_neither_closed_nor_shredded(store: KeyStore) -> None:
    assert await store.close_for_good("sk_none", clock.now()) is None
    assert await store.shred("sk_none", clock.now()) is None


async def test_keys_are_wrapped_again_and_a_shredded_one_does_not_come_back(store: KeyStore) -> None:
    kept, gone = await store.add(key(1)), await store.add(key(2))
    assert kept.wrapped is not None
    assert gone.wrapped is not None
    await store.shred(gone.id, clock.now())
    assert await store.rewrap(kept.id, kept.wrapped, b"anew")
    assert not await store.rewrap(kept.id, kept.wrapped, b"too late")
    assert not await store.rewrap(gone.id, gone.wrapped, b"back again")
    found = await store.fetch([kept.id, gone.id])
    assert (found[kept.id].wrapped, found[gone.id].wrapped) == (b"anew", None)


async def test_ids_come_in_pages(store: KeyStore) -> None:
    ids = [(await store.add(key(number))).id for number in range(1, 6)]
    assert await store.ids("", 2) == ids[:2]
    assert await store.ids(ids[1], 10) == ids[2:]


async def test_what_one_process_shreds_no_other_reads_after_its_cache(store: KeyStore) -> None:
    writing, reading = (SubjectKeys(store, BOX, cache_seconds=seconds) for seconds in (60, 0.05))
    sealing = await writing.of("ten_a", "usr_1")
    assert sealing is not None
    sealed = sealing.seal(b"a task", "p")
    assert (await reading.named([sealing.id]))[sealing.id].open(sealed, "p") == b"a task"
    await writing.shred(sealing.id, clock.now())
    await asyncio.sleep(0.06)
    for keys in (writing, reading):
        with pytest.raises(Erased):
            (await keys.named([sealing.id]))[sealing.id].open(sealed, "p")
        later = await keys.of("ten_a", "usr_1")
        assert later is not None
        assert not later.seals


async def test_keys_go_on_under_another_key_encryption_key(store: KeyStore) -> None:
    before = SubjectKeys(store, BOX)
    sealing = await before.of("ten_a", "usr_1")
    assert sealing is not None
    sealed = sealing.seal(b"a task", "p")
    both = SecretBox({"two": bytes(range(1, 33)), "one": bytes(range(32))})
    assert await SubjectKeys(store, both).rewrap_all() == 1
    assert await SubjectKeys(store, both).rewrap_all() == 0
    after = SubjectKeys(store, SecretBox({"two": bytes(range(1, 33))}))
    assert (await after.named([sealing.id]))[sealing.id].open(sealed, "p") == b"a task"
    with pytest.raises(Unavailable) as refused:
        await SubjectKeys(store, BOX).named([sealing.id])
    assert refused.value.code == "key_store_unavailable", "a missing key-encryption key erases nothing"


async def test_a_directory_holds_no_key_in_clear_and_nothing_that_others_may_read(tmp_path: Path) -> None:
    store = KeyDirectory(tmp_path / "keys")
    made = await SubjectKeys(store, BOX).of("ten_a", "usr_1")
    assert made is not None
    assert made.secret is not None
    [file] = (tmp_path / "keys").iterdir()
    assert file.stat().st_mode & 0o077 == (tmp_path / "keys").stat().st_mode & 0o077 == 0
    content = file.read_bytes()
    assert made.secret not in content
    assert made.secret.hex().encode() not in content
    await store.shred(made.id, clock.now())
    assert b'"wrapped":null' in file.read_bytes()
    assert [path.name for path in (tmp_path / "keys").iterdir()] == [file.name]


async def test_a_damaged_file_is_not_taken_for_an_erasure(tmp_path: Path) -> None:
    store = KeyDirectory(tmp_path)
    given = await store.add(key())
    (tmp_path / f"{given.id}.json").write_bytes(b"{")
    with pytest.raises(Unavailable):
        await store.fetch([given.id])


async def test_a_database_that_is_away_is_said_to_be() -> None:
    away = KeyDatabase(lambda: "postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(Unavailable) as refused:
        await away.fetch(["sk_a"])
    assert refused.value.code == "key_store_unavailable"
