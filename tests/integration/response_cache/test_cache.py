"""Replies in the database: found as long as they may be, sealed, and no more of them than there is room for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from codeagent import clock
from codeagent.encryption import NotOpened, SecretBox, key_of
from codeagent.eventlog.database import Database
from codeagent.eventlog.sealed import SEALED_COLUMNS, reseal
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.messages.conversation import AssistantMessage
from codeagent.providers.protocol import ModelReply, ModelRequest
from codeagent.response_cache.cache import ResponseCache
from codeagent.response_cache.slot import Bounds, Slot
from codeagent.response_cache.tables import forget_expired_replies, remove

OLD, NEW = {"old": bytes(32)}, {"new": bytes(range(32))}
REQUEST = ModelRequest(model="m", messages=())
HOUR = timedelta(hours=1)
ERASED = "UPDATE users SET disabled_at = now(), erased_at = now() WHERE id = 'usr_a'"
SLOT = Slot("ten_a", "k1", HOUR, "usr_a")


def saying(text: str) -> ModelReply:
    return ModelReply(AssistantMessage(text=text), response_model="m-2026")


def cache_of(database: Database, bounds: Bounds = Bounds(), **keys: bytes) -> ResponseCache:  # noqa: B008  immutable
    return ResponseCache(database, SecretBox(keys or OLD), bounds)


async def text_in(cache: ResponseCache, slot: Slot = SLOT) -> str | None:
    found = await cache.find(slot, REQUEST)
    return None if found is None else found.message.text


async def keys_in(database: Database) -> list[str]:
    return [row["key"] for row in await database.fetch("SELECT key FROM response_cache ORDER BY stored_at")]


async def aged(database: Database, by: timedelta) -> None:
    await database.write(
        "UPDATE response_cache SET stored_at = stored_at - $1::interval, expires_at = expires_at - $1", by
    )


async def test_a_reply_is_found_under_its_tenant_and_key_alone(database: Database) -> None:
    cache = cache_of(database)
    assert await text_in(cache) is None
    await cache.keep(SLOT, saying("first"))
    await cache.keep(SLOT, saying("second"))
    await cache.keep(replace(SLOT, tenant_id="ten_b"), saying("theirs"))
    assert await text_in(cache) == "second"
    assert await text_in(cache, replace(SLOT, tenant_id="ten_b")) == "theirs"
    assert await text_in(cache, replace(SLOT, key="k2")) is None
    assert await text_in(cache, replace(SLOT, tenant_id="ten_c")) is None


async def test_it_is_as_old_at_most_as_who_kept_it_and_who_asks_for_it_want(database: Database) -> None:
    cache = cache_of(database)
    await cache.keep(SLOT, saying("it"))
    await aged(database, timedelta(minutes=30))
    assert await text_in(cache) == "it"
    assert await text_in(cache, replace(SLOT, ttl=timedelta(minutes=29))) is None
    await aged(database, timedelta(minutes=31))
    assert await text_in(cache, replace(SLOT, ttl=timedelta(days=1))) is None


async def test_what_has_expired_is_swept_and_nothing_else(database: Database) -> None:
    cache = cache_of(database)
    for number in range(3):
        await cache.keep(replace(SLOT, key=f"old{number}"), saying("it"))
    await aged(database, HOUR)
    await cache.keep(SLOT, saying("it"))
    assert [await forget_expired_replies(database, 2) for _ in range(3)] == [2, 1, 0]
    assert await keys_in(database) == ["k1"]


async def test_of_a_tenant_the_oldest_go_when_there_are_too_many_or_they_are_too_long(database: Database) -> None:
    few = cache_of(database, Bounds(tenant_rows=3))
    await few.keep(replace(SLOT, tenant_id="ten_b", key="theirs"), saying("it"))
    for key in ("k1", "k2", "k3", "k4"):
        await few.keep(replace(SLOT, key=key), saying("it"))
    assert await keys_in(database) == ["theirs", "k2", "k3", "k4"]
    await few.keep(replace(SLOT, key="k2"), saying("it"))
    assert await keys_in(database) == ["theirs", "k3", "k4", "k2"]
    short = cache_of(database, Bounds(tenant_rows=3, tenant_bytes=2_900))
    await short.keep(replace(SLOT, key="k5"), saying("x" * 2_200))
    assert await keys_in(database) == ["theirs", "k2", "k5"]
    [row] = await database.fetch("SELECT sum(size_bytes) AS kept FROM response_cache WHERE tenant_id = 'ten_a'")
    assert row["kept"] <= 2_900


async def test_a_reply_that_is_too_long_is_not_kept(database: Database) -> None:
    cache = cache_of(database, Bounds(reply_bytes=1_000))
    assert not await cache.keep(SLOT, saying("x" * 1_000))
    assert await cache.keep(SLOT, saying("x" * 800))
    assert await text_in(cache) == "x" * 800


async def test_nothing_of_it_can_be_read_or_moved_without_the_key(database: Database) -> None:
    cache = cache_of(database)
    await cache.keep(SLOT, saying("the very secret plan"))
    [row] = await database.fetch("SELECT * FROM response_cache")
    assert b"secret plan" not in row["reply_sealed"]
    await database.write("UPDATE response_cache SET key = 'k2'")
    assert await text_in(cache, replace(SLOT, key="k2")) is None
    with pytest.raises(NotOpened):
        SecretBox(OLD).open(row["reply_sealed"], "ten_b/response_cache/k1")


async def test_a_key_that_is_gone_leaves_nothing_to_find_and_the_next_reply_takes_the_place(database: Database) -> None:
    await cache_of(database).keep(SLOT, saying("old"))
    cache = cache_of(database, **NEW)
    assert await text_in(cache) is None
    await cache.keep(SLOT, saying("new"))
    assert await text_in(cache) == "new"


async def test_a_key_that_is_rotated_takes_the_replies_along(database: Database) -> None:
    await cache_of(database).keep(SLOT, saying("old"))
    columns = [column for column in SEALED_COLUMNS if column.table == "response_cache"]
    [done] = await reseal(database, SecretBox({**NEW, **OLD}), columns)
    [row] = await database.fetch("SELECT reply_sealed FROM response_cache")
    assert (done.resealed, key_of(row["reply_sealed"])) == (1, "new")
    assert await text_in(cache_of(database, **NEW)) == "old"


async def test_what_is_no_reply_goes_unless_another_has_taken_its_place(database: Database) -> None:
    cache, box = cache_of(database), SecretBox(OLD)
    await cache.keep(SLOT, saying("it"))
    await database.write("UPDATE response_cache SET reply_sealed = $1", box.seal(b'{"message": 1}', SLOT.place))
    assert await text_in(cache) is None
    assert await keys_in(database) == []
    await cache.keep(SLOT, saying("newer"))
    await remove(database, SLOT, clock.now() - HOUR)
    assert await text_in(cache) == "newer"


async def test_the_edge_can_remove_the_replies_of_its_tenant_and_read_none(database: Database) -> None:
    cache = cache_of(database)
    for tenant in ("ten_a", "ten_b"):
        await cache.keep(replace(SLOT, tenant_id=tenant), saying("it"))
    edge = Database(database.url, connections=1, role=EDGE_ROLE)
    with pytest.raises(Exception, match="permission denied"):
        await edge.fetch("SELECT reply_sealed FROM response_cache", tenant="ten_a")
    removed = await edge.write("DELETE FROM response_cache WHERE true RETURNING tenant_id", tenant="ten_a")
    await edge.close()
    assert [row["tenant_id"] for row in removed] == ["ten_a"]
    assert await text_in(cache, replace(SLOT, tenant_id="ten_b")) == "it"


async def a_user(database: Database) -> None:
    await database.write("INSERT INTO tenants (id, version, name) VALUES ('ten_a', 1, 'a')")
    await database.write("INSERT INTO users (id, tenant_id, version, role) VALUES ('usr_a', 'ten_a', 1, 'developer')")


async def test_of_somebody_who_was_erased_nothing_is_kept_any_more(database: Database) -> None:
    await a_user(database)
    await database.write(ERASED)
    cache = cache_of(database)
    await cache.keep(SLOT, saying("it"))
    assert await text_in(cache) is None


async def test_a_reply_that_comes_while_somebody_is_erased_is_not_kept(database: Database) -> None:
    await a_user(database)
    cache = cache_of(database)
    async with database.transaction() as erasure:
        await erasure.execute("SELECT FROM users WHERE id = 'usr_a' FOR UPDATE")
        keeping = asyncio.create_task(cache.keep(SLOT, saying("it")))
        waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'WITH asked%'"
        async with asyncio.timeout(20):
            while not await database.fetch(waits):
                await asyncio.sleep(0.005)
        await erasure.execute(ERASED)
    await keeping
    assert await text_in(cache) is None
