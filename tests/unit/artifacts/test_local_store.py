"""Artifacts on a disk: complete or absent, whoever is killed, whatever a name says, however full the disk is."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codeagent.artifacts import blobs
from codeagent.artifacts.blobs import folder_of
from codeagent.artifacts.store import ArtifactCorrupt, LocalArtifactStore
from codeagent.errors import InvalidInput
from tests.unit.artifacts.samples import files_below

DATA = b"some bytes"
HEX = hashlib.sha256(DATA).hexdigest()
DIGEST = f"sha256:{HEX}"


async def never() -> AsyncIterator[bytes]:
    yield DATA
    await asyncio.sleep(60)


async def test_a_file_lies_where_operators_expect_it_readable_for_the_group_alone(
    store: LocalArtifactStore, root: Path
) -> None:
    old = os.umask(0o077)
    try:
        await store.put("ten_1", DATA)
    finally:
        os.umask(old)

    assert files_below(root) == [f"ten_1/sha256/{HEX[:2]}/{HEX}"]
    assert stat.S_IMODE((root / "ten_1" / "sha256" / HEX[:2] / HEX).stat().st_mode) == 0o640
    for folder in (root, root / "ten_1", root / "ten_1" / "sha256", root / "ten_1" / "sha256" / HEX[:2]):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o770


@pytest.mark.parametrize("tenant", [
    "..", ".", "../../etc", "/etc", "a/b", "a\\b", "a\0b", ".incoming", "-rf", "~", "CON ", "ü", "\ud800", "%2e", " ",
])  # fmt: skip
async def test_a_hostile_tenant_id_is_a_folder_like_any_other(
    store: LocalArtifactStore, root: Path, tenant: str
) -> None:
    await store.put(tenant, DATA)

    assert files_below(root) == [f"{folder_of(tenant)}/sha256/{HEX[:2]}/{HEX}"]
    assert sorted(path.name for path in root.parent.parent.iterdir()) == ["new"]
    assert await store.read(tenant, DIGEST) == DATA


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_no_two_tenants_share_a_folder_even_where_case_does_not_count(one: str, other: str) -> None:
    folders = []
    for tenant in (one, other):
        try:
            folders.append(folder_of(tenant))
        except InvalidInput:
            return
    assert (folders[0].lower() == folders[1].lower()) == (one == other)
    for folder in folders:
        assert set(folder) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-%")
        assert len(folder) <= 255


@pytest.mark.parametrize("tenant", ["", "x" * 201, "/" * 100])
async def test_an_impossible_tenant_id_is_refused_before_anything_is_read(
    store: LocalArtifactStore, root: Path, tmp_path: Path, tenant: str
) -> None:
    taken = never()
    (tmp_path / "file").write_bytes(DATA)

    for writing in (
        store.put(tenant, DATA),
        store.put_stream(tenant, taken, 10),
        store.put_file(tenant, tmp_path / "file"),
    ):
        with pytest.raises(InvalidInput):
            await writing

    assert taken.ag_frame is not None, "not started"  # type: ignore[attr-defined]
    assert files_below(root) == []
    assert (tmp_path / "file").exists()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=80).filter(lambda text: len(text) != 71))
async def test_no_text_but_a_digest_names_a_file(store: LocalArtifactStore, digest: str) -> None:
    assert await store.size("tenant", digest) is None
    assert await store.size("tenant", f"sha256:{digest}") is None


async def damage(store: LocalArtifactStore, replacement: bytes) -> None:
    (await store.path("tenant", DIGEST)).write_bytes(replacement)


@pytest.mark.parametrize("replacement", [b"Some bytes", b"", b"some bytes and more"])
async def test_damaged_content_is_never_handed_out_as_whole(store: LocalArtifactStore, replacement: bytes) -> None:
    await store.put("tenant", DATA)
    await damage(store, replacement)

    with pytest.raises(ArtifactCorrupt) as failure:
        await store.read("tenant", DIGEST)
    assert (failure.value.code, failure.value.status) == ("artifact_corrupt", 500)
    seen: list[bytes] = []
    with pytest.raises(ArtifactCorrupt):
        async for chunk in await store.open_range("tenant", DIGEST, 0, 1 << 40):
            seen.append(chunk)
    assert seen == [], "the last chunk comes after the check"


async def test_a_file_cut_off_while_it_is_read_is_damaged(store: LocalArtifactStore) -> None:
    data = bytes(200_000)
    digest = await store.put("tenant", data)
    chunks = await store.open_range("tenant", digest, 0, 150_000)
    await anext(chunks)
    (await store.path("tenant", digest)).write_bytes(b"short")

    with pytest.raises(ArtifactCorrupt):
        await anext(chunks)


@pytest.mark.parametrize("way", ["put", "put_file", "put_stream"])
async def test_putting_damaged_content_again_heals_it(store: LocalArtifactStore, tmp_path: Path, way: str) -> None:
    async def stream() -> AsyncIterator[bytes]:
        yield DATA

    await store.put("tenant", DATA)
    await damage(store, b"Some bytes")
    (tmp_path / "file").write_bytes(DATA)
    if way == "put":
        await store.put("tenant", DATA)
    elif way == "put_file":
        await store.put_file("tenant", tmp_path / "file")
    else:
        await store.put_stream("tenant", stream(), 100)

    assert await store.read("tenant", DIGEST) == DATA


async def test_a_file_that_someone_else_can_still_change_is_copied(store: LocalArtifactStore, tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    mine.write_bytes(DATA)
    os.link(mine, theirs)

    assert await store.put_file("tenant", mine) == (DIGEST, len(DATA))
    theirs.write_bytes(b"Some bytes")

    assert await store.read("tenant", DIGEST) == DATA
    assert not mine.exists()


async def test_only_regular_files_are_taken(store: LocalArtifactStore, root: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(DATA)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "fifo")

    with pytest.raises(ValueError, match="regular"):
        await asyncio.wait_for(store.put_file("tenant", tmp_path / "fifo"), 5)
    with pytest.raises(OSError, match="symbolic"):
        await store.put_file("tenant", tmp_path / "link")

    assert files_below(root) == []


async def test_a_refused_or_broken_stream_leaves_no_file(store: LocalArtifactStore, root: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(1 << 20)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await store.put_stream("tenant", broken(), 1 << 30)

    assert files_below(root) == []


async def test_a_cancelled_upload_leaves_no_file(store: LocalArtifactStore, root: Path) -> None:
    begun = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield bytes(1 << 20)
        begun.set()
        await asyncio.sleep(60)

    upload = asyncio.create_task(store.put_stream("tenant", slow(), 1 << 30))
    await begun.wait()
    assert len(files_below(root)) == 1
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload

    assert files_below(root) == []


async def test_an_upload_cancelled_while_it_writes_waits_for_the_write(
    store: LocalArtifactStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stream() -> AsyncIterator[bytes]:
        yield DATA

    real = blobs.Incoming.write
    ended: list[bool] = []

    def slow(self: blobs.Incoming, data: bytes) -> None:
        time.sleep(0.2)
        real(self, data)
        ended.append(True)

    monkeypatch.setattr(blobs.Incoming, "write", slow)
    upload = asyncio.create_task(store.put_stream("tenant", stream(), 100))
    await asyncio.sleep(0.05)
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload

    assert ended == [True]
    assert files_below(root) == []
