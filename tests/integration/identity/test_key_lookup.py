"""Finding a key costs a query once; guessing costs little, and pushes nobody out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from codeagent import clock
from codeagent.errors import Unavailable
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.identity.api_keys import ApiKeys, KeyOrder
from codeagent.identity.key_lookup import DatabaseKeys
from codeagent.identity.keys import KeyHasher, new_key
from codeagent.identity.last_uses import LastUses
from codeagent.identity.scopes import Scope
from codeagent.messages.ids import typed_id

AUTHOR = Author("ten_test", "app_user", "usr_1", clock.new_uuid())
HASHER = KeyHasher([b"p" * 32])


class Counted(Database):
    """Counts look-ups, and how many keys each was for."""

    looked_up: list[int]

    async def fetch(self, query: str, *arguments: Any, tenant: str = "") -> Sequence[Any]:
        if "find_api_keys" in query:
            self.looked_up.append(len(arguments[0]))
        return await super().fetch(query, *arguments, tenant=tenant)


@pytest.fixture
async def walled(newest_database_url: str) -> AsyncIterator[Counted]:
    database = Counted(newest_database_url, connections=3, role=EDGE_ROLE)
    database.looked_up = []
    yield database
    await database.close()


def lookup(database: Database, uses: list[str] | None = None, **options: Any) -> DatabaseKeys:
    return DatabaseKeys(database, HASHER, (uses if uses is not None else []).append, **options)


async def make(database: Database, scopes: Collection[Scope] = (Scope.RUNS_READ,)) -> tuple[str, str]:
    """A key and its id."""
    order = KeyOrder(typed_id("key", clock.new_uuid()), "usr_1", "test", frozenset(scopes))
    made = await ApiKeys(database, HASHER, longest_life=timedelta(days=365)).create(AUTHOR, order)
    assert made.secret is not None
    return made.secret, made.key.id


async def test_a_key_is_looked_up_once_and_each_use_is_told(walled: Counted) -> None:
    uses: list[str] = []
    keys, (secret, key_id) = lookup(walled, uses), await make(walled)
    for _ in range(3):
        principal = await keys.authenticate(secret)
        assert principal is not None
        assert (principal.tenant_id, principal.id, principal.credential_id) == ("ten_test", "usr_1", key_id)
        assert principal.scopes == {Scope.RUNS_READ}
    assert walled.looked_up == [1]
    assert uses == [key_id] * 3


async def test_a_key_is_looked_up_again_after_its_time_in_memory(walled: Counted) -> None:
    keys, (secret, _) = lookup(walled, known_seconds=0.0), await make(walled)
    assert await keys.authenticate(secret)
    assert await keys.authenticate(secret)
    assert walled.looked_up == [1, 1]


TENANT_ROW = "INSERT INTO tenants (id, version, name) VALUES ('ten_test', 1, 'test')"


@pytest.mark.parametrize(
    ("statements", "scopes"),
    [
        ((), {Scope.RUNS_READ, Scope.RUNS_WRITE}),
        (
            ("INSERT INTO users (id, tenant_id, version, role) VALUES ('usr_1', 'ten_test', 1, 'viewer')",),
            {Scope.RUNS_READ},
        ),
        (
            (
                "INSERT INTO service_accounts (id, tenant_id, version, name, scope, secret_digest) "
                "VALUES ('usr_1', 'ten_test', 1, 'test', 'runs:write usage:read', '')",
            ),
            {Scope.RUNS_WRITE},
        ),
        (
            (
                "INSERT INTO users (id, tenant_id, version, role, disabled_at) "
                "VALUES ('usr_1', 'ten_test', 1, 'owner', now())",
            ),
            None,
        ),
        (("UPDATE tenants SET suspended_at = now()",), None),
    ],
    ids=["known to operators only", "a viewer", "a service account", "a disabled user", "of a suspended tenant"],
)
async def test_a_key_may_do_what_its_principal_may_still_do(
    walled: Counted, newest_database_url: str, statements: tuple[str, ...], scopes: set[Scope] | None
) -> None:
    secret, _ = await make(walled, {Scope.RUNS_READ, Scope.RUNS_WRITE})
    owner = Database(newest_database_url, connections=1)
    for statement in (TENANT_ROW, *statements):
        await owner.write(statement)
    await owner.close()
    principal = await lookup(walled).authenticate(secret)
    assert (None if principal is None else principal.scopes) == scopes


async def test_what_is_no_key_by_its_checksum_is_not_looked_up(walled: Counted) -> None:
    keys = lookup(walled)
    for text in ("", "cak_", "Bearer", new_key()[:-1] + "!", "eyJhbGciOiJub25lIn0.e30."):
        assert await keys.authenticate(text) is None
    assert walled.looked_up == []


async def test_an_unknown_key_is_remembered_as_such_for_a_moment(walled: Counted) -> None:
    keys, guess = lookup(walled), new_key()
    assert await keys.authenticate(guess) is None
    assert await keys.authenticate(guess) is None
    assert walled.looked_up == [1]


async def test_guesses_share_queries_and_do_not_push_out_keys_in_use(walled: Counted) -> None:
    keys, (secret, _) = lookup(walled, most=4), await make(walled)
    assert await keys.authenticate(secret)
    guesses = [new_key() for _ in range(60)]
    assert set(await asyncio.gather(*(keys.authenticate(guess) for guess in guesses))) == {None}
    assert len(walled.looked_up) < 10
    before = len(walled.looked_up)
    assert await keys.authenticate(secret)
    assert len(walled.looked_up) == before


async def test_a_database_that_is_away_makes_no_key_an_unknown_one(walled: Counted) -> None:
    keys, (secret, _) = lookup(walled), await make(walled)
    url, walled.url = walled.url, "postgresql://nobody:x@127.0.0.1:1/none"
    await walled.close()
    with pytest.raises(Unavailable):
        await keys.authenticate(secret)
    walled.url = url
    assert await keys.authenticate(secret)


async def last_use(database: Database, key_id: str) -> datetime | None:
    rows = await database.fetch("SELECT last_used_at FROM api_keys WHERE id = $1", key_id, tenant="ten_test")
    used: datetime | None = rows[0]["last_used_at"]
    return used


async def test_uses_are_written_behind_and_at_most_once_a_minute(walled: Counted) -> None:
    _, key_id = await make(walled)
    uses = LastUses(walled, write_seconds=0.02)
    await uses.start()
    uses.note(key_id)
    async with asyncio.timeout(20):
        while (first := await last_use(walled, key_id)) is None:
            await asyncio.sleep(0.01)
    uses.note(key_id)
    await uses.stop()
    other_edge = LastUses(walled)
    await other_edge.start()
    other_edge.note(key_id)
    await other_edge.stop()
    assert await last_use(walled, key_id) == first


async def test_uses_that_could_not_be_written_are_written_later(walled: Counted) -> None:
    _, key_id = await make(walled)
    url, walled.url = walled.url, "postgresql://nobody:x@127.0.0.1:1/none"
    await walled.close()
    uses = LastUses(walled, write_seconds=60)
    await uses.start()
    uses.note(key_id)
    await uses.stop()
    walled.url = url
    assert await last_use(walled, key_id) is None
    await uses.start()
    await uses.stop()
    assert await last_use(walled, key_id) is not None
