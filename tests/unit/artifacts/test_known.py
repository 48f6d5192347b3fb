"""A burst of runs on one archive asks the disk once; what is missing is looked for each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from codeagent.artifacts import known
from codeagent.artifacts.known import KnownArtifacts
from codeagent.artifacts.store import LocalArtifactStore


class Counted(LocalArtifactStore):
    looks = 0

    async def exists(self, tenant_id: str, digest: str) -> bool:
        self.looks += 1
        return await super().exists(tenant_id, digest)


@pytest.fixture
async def store(tmp_path: Path) -> Counted:
    made = Counted(tmp_path)
    await made.start()
    return made


async def test_what_is_there_is_remembered_for_its_tenant_and_for_a_moment(
    store: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(known.time, "monotonic", lambda: now)
    remembered, digest = KnownArtifacts(store, seconds=5.0), await store.put("ten_a", b"archive")
    assert [await remembered.exists("ten_a", digest) for _ in range(10)] == [True] * 10
    assert store.looks == 1
    assert not await remembered.exists("ten_b", digest)
    now += 5.1
    assert await remembered.exists("ten_a", digest)
    assert store.looks == 3


async def test_what_is_missing_may_come_at_any_moment(store: Counted) -> None:
    remembered, digest = KnownArtifacts(store), await store.put("ten_a", b"archive")
    assert [await remembered.exists("ten_b", digest) for _ in range(2)] == [False, False]
    await store.put("ten_b", b"archive")
    assert await remembered.exists("ten_b", digest)


async def test_it_does_not_grow_without_bound(store: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "MOST_KNOWN", 3)
    remembered = KnownArtifacts(store)
    for number in range(10):
        assert await remembered.exists("ten_a", await store.put("ten_a", bytes([number])))
    assert len(remembered._until) == 3
