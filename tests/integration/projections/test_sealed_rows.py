"""Projections of a log whose content is sealed, and partly gone: nothing comes back, nothing is lost for want of keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from codeagent import clock
from codeagent.errors import Unavailable
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.privacy.tables import Erasure, artifacts_of, forget_unopened
from codeagent.projections.artifact_references import ArtifactReferences, named_among
from codeagent.projections.projection import Projection
from codeagent.projections.rebuild import make_anew
from codeagent.projections.runs import RunsProjector
from tests.integration.projections.logs import TENANT, caught_up, new_run_id, write
from tests.integration.projections.test_rebuild import made_anew, story
from tests.integration.subject_keys import keys_in_memory

NAMES = "SELECT encode(digest, 'hex') FROM artifact_references ORDER BY 1"


@pytest.fixture
async def sealed(newest_database_url: str) -> AsyncIterator[tuple[Database, str]]:
    """A run that is kept, sealed with the key that is told."""
    keys = keys_in_memory()
    database = Database(newest_database_url, subjects=keys)
    key = await keys.of(TENANT, "usr_a")
    assert key is not None
    await write(database, [replace(happened, key=key) for happened in story(new_run_id())])
    await caught_up(database, ArtifactReferences(database, EventLog(database)))
    await caught_up(database, RunsProjector(database, EventLog(database)))
    yield database, key.id
    await database.close()


async def test_names_that_an_erasure_has_removed_do_not_come_back(sealed: tuple[Database, str]) -> None:
    """Between their removal and that of the content, the log still says them."""
    database, key_id = sealed
    assert await database.fetch(NAMES) != []
    await database.write(
        "INSERT INTO erasures (id, tenant_id, subject_id, key_id, closed_at) VALUES ('prv_x', $1, 'usr_a', $2, $3)",
        TENANT,
        key_id,
        clock.now(),
    )
    await database.write("DELETE FROM artifact_references WHERE key_id = $1", key_id)
    assert (await made_anew(database, ArtifactReferences, swap=False)).differences == []
    await made_anew(database, ArtifactReferences, swap=True)
    assert await database.fetch(NAMES) == []


async def test_and_without_an_erasure_they_are_missed_and_put_back(sealed: tuple[Database, str]) -> None:
    database, _ = sealed
    before = await database.fetch(NAMES)
    await database.write("DELETE FROM artifact_references")
    [missing] = (await made_anew(database, ArtifactReferences, swap=True)).differences
    assert (missing.missing, missing.surplus) == (len(before), 0)
    assert await database.fetch(NAMES) == before


@pytest.mark.parametrize("kind", [ArtifactReferences, RunsProjector])
async def test_nothing_is_made_anew_with_keys_that_are_another_logs(
    sealed: tuple[Database, str], newest_database_url: str, kind: type[Projection]
) -> None:
    database, _ = sealed
    before = await database.fetch(NAMES), await database.fetch("SELECT runs::text FROM runs")
    stranger = Database(newest_database_url, subjects=keys_in_memory())
    with pytest.raises(Unavailable):
        async for _ in make_anew(stranger, [kind], swap=True):
            pass
    await stranger.close()
    assert (await database.fetch(NAMES), await database.fetch("SELECT runs::text FROM runs")) == before


async def test_what_cannot_be_opened_is_not_passed_over(newest_database_url: str, sealed: tuple[Database, str]) -> None:
    """An artifact that nothing names is removed: the list of names stands still before a fact that it cannot read."""
    stranger = Database(newest_database_url, subjects=keys_in_memory())
    await stranger.write("DELETE FROM projections WHERE name = $1", ArtifactReferences.NAME)
    with pytest.raises(Unavailable):
        await ArtifactReferences(stranger, EventLog(stranger)).catch_up()
    assert await stranger.fetch("SELECT 1 FROM projections WHERE name = $1", ArtifactReferences.NAME) == []
    await stranger.close()


async def spoiled(database: Database, key_id: str) -> None:
    """One sealed fact is changed; the list of artifacts is made from the beginning."""
    await database.write(
        """UPDATE events SET sealed = '\\x00' WHERE event_id =
               (SELECT event_id FROM events WHERE key_id = $1 ORDER BY global_position LIMIT 1)""",
        key_id,
    )
    await database.write("DELETE FROM artifact_references")
    await database.write("DELETE FROM projections WHERE name = $1", ArtifactReferences.NAME)
    await caught_up(database, ArtifactReferences(database, EventLog(database)))


async def test_one_that_its_key_does_not_open_holds_up_its_tenants_sweep_alone(sealed: tuple[Database, str]) -> None:
    """It may have named anything of theirs."""
    database, key_id = sealed
    nobodys = f"sha256:{'9' * 64}"
    assert await named_among(database, TENANT, [nobodys]) == set()
    await spoiled(database, key_id)
    assert await named_among(database, TENANT, [nobodys]) == {nobodys}
    assert await named_among(database, "ten_other", [nobodys]) == set()
    assert (await made_anew(database, ArtifactReferences, swap=False)).differences == []


async def test_and_that_ends_with_its_content(sealed: tuple[Database, str]) -> None:
    """The list of what an erasure removes has no file for it."""
    database, key_id = sealed
    await spoiled(database, key_id)
    erasure = Erasure("prv_x", TENANT, "usr_a", key_id, clock.now(), None, None, None, [], {}, "")
    assert "sha256:" not in [digest for digest, _ in await artifacts_of(database, erasure, "", 1000)]
    await forget_unopened(database, erasure)
    assert await named_among(database, TENANT, [f"sha256:{'9' * 64}"]) == set()
