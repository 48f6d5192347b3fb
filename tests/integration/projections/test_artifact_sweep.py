"""Artifacts go when nothing names them and nobody wants them, and not before."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from codeagent import clock
from codeagent.artifacts.blobs import BlobFiles
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.artifacts.sweep import ArtifactSweep
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.step import EffectRow
from codeagent.messages import events
from codeagent.messages.commands import ExecuteOperation
from codeagent.messages.envelope import Event
from codeagent.messages.executions import Installed
from codeagent.messages.values import ArchiveSource, Artifact, CollectPatch, Outcome, PrepareFiles
from codeagent.projections.artifact_references import MOST_LAG, ArtifactReferences, named_among
from codeagent.projections.dependency_caches import forget_dependencies, recall
from tests.integration.eventlog.steps import TENANT, commit_step, new_run, step

OTHER = "ten_o'ther"
GRACE = 3600.0


def patch_made(digest: str) -> Event:
    return events.ArtifactCreated(
        artifact=Artifact(name="changes.patch", media_type="text/x-diff", size_bytes=1, digest=digest)
    )


class Store:
    """An artifact store on a disk, and the sweep of it."""

    def __init__(self, database: Database, root: Path) -> None:
        self.database = database
        self.files = BlobFiles(root)
        self.artifacts = LocalArtifactStore(root)
        self.removed: list[int] = []
        self.sweep = self.another()

    def another(self) -> ArtifactSweep:
        named = partial(named_among, self.database)
        return ArtifactSweep(self.files, named, grace_seconds=GRACE, removed=self.removed.append)

    async def put(self, name: str, tenant: str = TENANT, age: float = 2 * GRACE) -> str:
        digest = await self.artifacts.put(tenant, name.encode())
        self.make_older(tenant, digest, age)
        return digest

    def make_older(self, tenant: str, digest: str, age: float) -> None:
        then = time.time() - age
        os.utime(self.files.location(tenant, digest), (then, then))

    def there(self, digest: str, tenant: str = TENANT) -> bool:
        return self.files.location(tenant, digest).exists()


@pytest.fixture
async def store(database: Database, tmp_path: Path) -> Store:
    made = Store(database, tmp_path / "artifacts")
    await made.artifacts.start()
    return made


async def project(database: Database) -> None:
    follower = ArtifactReferences(database, EventLog(database))
    while await follower.catch_up(3):
        pass


async def test_what_a_fact_or_a_command_under_way_names_stays_and_the_rest_goes(
    store: Store, database: Database
) -> None:
    patch, archive, source, nobodys = [await store.put(name) for name in ("patch", "archive", "source", "nobody's")]
    fresh = await store.put("fresh", age=GRACE / 2)
    theirs = await store.put("patch", tenant=OTHER)  # the same bytes, which nothing of theirs names
    run_id = new_run()
    effect_id = clock.new_uuid()
    command = ExecuteOperation(
        effect_id=effect_id, run_id=run_id, base=archive, checkpoint="", operation=CollectPatch()
    )
    effect = EffectRow(effect_id, "sandbox", command)
    await commit_step(database, step(run_id, 0, [patch_made(patch)], effects=[effect]))
    await database.write(
        """INSERT INTO outbox (id, topic, key, tenant_id, headers, value, due_at)
           VALUES (gen_random_uuid(), 't', 'k', $1, '{}', $2, clock_timestamp())""",
        TENANT,
        PrepareFiles(source=ArchiveSource(digest=source)).model_dump_json().encode(),
    )
    await project(database)
    assert await store.sweep.forget(1000) == 2
    assert [store.there(digest) for digest in (patch, archive, source, nobodys, fresh)] == [
        True,
        True,
        True,
        False,
        True,
    ]
    assert not store.there(theirs, OTHER)
    assert store.removed == [2]
    assert await store.sweep.forget(1000) == 0


def installed(key: str, digest: str, *, recalled: bool = False) -> Event:
    return events.ExecEnded(
        effect_id=clock.new_uuid(),
        run_id=new_run(),
        attempt=1,
        outcome=Outcome.DONE,
        operation="install",
        reason="ok",
        driver="bwrap",
        level=2,
        duration_seconds=1.0,
        installed=Installed(key=key, dependencies=digest, size_bytes=1, recalled=recalled),
    )


def completed(digest: str) -> Event:
    return events.StepCompleted(step=0, name="install", dependencies=digest)


KEY, OTHER_KEY = ("sha256:" + character * 64 for character in "ab")


async def test_what_was_installed_is_recalled_by_its_tenant_alone(store: Store, database: Database) -> None:
    first, second = [await store.put(name) for name in ("first", "second")]
    facts = [installed(KEY, first), installed(OTHER_KEY, first), installed(KEY, second)]
    await commit_step(database, step(new_run(), 0, facts))
    assert await recall(database, TENANT, KEY) is None, "a moment behind the log"
    await project(database)
    assert await recall(database, TENANT, KEY) == second
    assert await recall(database, TENANT, OTHER_KEY) == first
    assert await recall(database, OTHER, KEY) is None


async def test_dependencies_stay_while_they_are_used_and_go_when_they_are_forgotten(
    store: Store, database: Database
) -> None:
    used, unused, named = [await store.put(name) for name in ("used", "unused", "named")]
    old = step(new_run(), 0, [installed(OTHER_KEY, unused), completed(unused), installed(KEY, used), patch_made(named)])
    then = clock.now() - timedelta(days=40)
    await commit_step(database, replace(old, events=[replace(event, occurred_at=then) for event in old.events]))
    await commit_step(database, step(new_run(), 0, [installed(KEY, used, recalled=True), completed(used)]))
    await project(database)
    assert await store.sweep.forget(1000) == 0
    assert await forget_dependencies(database, timedelta(days=30), 1000) == 1
    assert (await recall(database, TENANT, OTHER_KEY), await recall(database, TENANT, KEY)) == (None, used)
    assert await store.sweep.forget(1000) == 1
    assert [store.there(digest) for digest in (used, unused, named)] == [True, False, True]


async def test_what_is_remembered_is_built_anew_from_the_log(store: Store, database: Database) -> None:
    digest = await store.put("installed")
    await commit_step(database, step(new_run(), 0, [installed(KEY, digest), installed(KEY, digest, recalled=True)]))
    await project(database)
    rows = "SELECT tenant_id, key_digest, archive_digest, used_at FROM dependency_caches"
    before = [tuple(row) for row in await database.fetch(rows)]
    await database.write("DELETE FROM dependency_caches")
    await database.write("DELETE FROM projections WHERE name = $1", ArtifactReferences.NAME)
    await project(database)
    assert [tuple(row) for row in await database.fetch(rows)] == before


async def test_a_table_that_is_far_behind_the_log_is_not_believed(store: Store, database: Database) -> None:
    digest = await store.put("patch")
    late = step(new_run(), 0, [patch_made(digest)])
    then = clock.now() - MOST_LAG - timedelta(minutes=1)
    await commit_step(database, replace(late, events=[replace(event, occurred_at=then) for event in late.events]))
    assert await store.sweep.forget(1000) == 0
    assert store.there(digest)


async def test_what_is_stored_again_or_asked_for_is_as_good_as_new(store: Store) -> None:
    again, asked, moved = await store.put("again"), await store.put("asked"), await store.put("moved")
    latest = time.time() - GRACE
    old = [digest for shelf in store.files.shelves() for digest in store.files.older_than(*shelf, latest)]
    assert sorted(old) == sorted((again, asked, moved))
    await store.artifacts.put(TENANT, b"again")
    assert await store.artifacts.exists(TENANT, asked)
    upload = store.files.location(TENANT, moved).parent / "upload"
    upload.write_bytes(b"moved")
    os.utime(upload, (0, 0))
    await store.artifacts.put_file(TENANT, upload)
    assert [store.files.remove_if_older(TENANT, digest, latest) for digest in old] == [False] * 3
    assert await store.artifacts.read(TENANT, asked) == b"asked"
    assert await store.sweep.forget(1000) == 0


async def test_whoever_stores_while_it_is_swept_has_stored_it(store: Store) -> None:
    """The same bytes, put and swept at once, many times: what `put` has returned is there."""
    sweeps = [store.another() for _ in range(2)]
    for _ in range(30):
        digest = await store.put("contended")
        await asyncio.gather(
            store.artifacts.put(TENANT, b"contended"),
            *(sweep.forget(1000) for sweep in sweeps),
            return_exceptions=False,
        )
        assert await store.artifacts.read(TENANT, digest) == b"contended"


async def test_it_works_in_bounded_pieces_and_comes_round(store: Store) -> None:
    many = [await store.put(f"nobody's {number}") for number in range(20)]
    counts = [await store.sweep.forget(5) for _ in range(40)]
    assert sum(counts) == len(many)
    assert max(counts) <= 10  # what two directories may hold
    assert not any(store.there(digest) for digest in many)
