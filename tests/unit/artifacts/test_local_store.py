"""Artifacts on a disk: complete or absent, whoever is killed, whatever a name says, however full the disk is."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codeagent.artifacts import blobs, threads
from codeagent.artifacts.blobs import folder_of
from codeagent.artifacts.store import ArtifactCorrupt, LocalArtifactStore
from codeagent.errors import InvalidInput, Unavailable

DATA = b"some bytes"
HEX = hashlib.sha256(DATA).hexdigest()
DIGEST = f"sha256:{HEX}"


@pytest.fixture
async def root(tmp_path: Path) -> Path:
    return tmp_path / "new" / "artifacts"


@pytest.fixture
async def store(root: Path) -> LocalArtifactStore:
    store = LocalArtifactStore(root)
    await store.start()
    return store


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


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


@pytest.mark.parametrize(("number", "code"), [
    (errno.ENOSPC, "storage_full"),
    (errno.EDQUOT, "storage_full"),
    (errno.EIO, "storage_unavailable"),
    (errno.EROFS, "storage_unavailable"),
])  # fmt: skip
@pytest.mark.parametrize("way", ["put", "put_file", "put_stream"])
async def test_a_full_or_failing_disk_is_a_reason_to_try_later(
    store: LocalArtifactStore,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: str,
    way: str,
) -> None:
    async def stream() -> AsyncIterator[bytes]:
        yield DATA

    def failing(_: int) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "file").write_bytes(DATA)
    monkeypatch.setattr(blobs.os, "fsync", failing)

    writing: dict[str, Any] = {
        "put": lambda: store.put("tenant", DATA),
        "put_file": lambda: store.put_file("tenant", tmp_path / "file"),
        "put_stream": lambda: store.put_stream("tenant", stream(), 100),
    }
    with pytest.raises(Unavailable) as failure:
        await writing[way]()

    assert (failure.value.code, failure.value.status, failure.value.retryable) == (code, 503, True)
    assert files_below(root) == []
    assert (tmp_path / "file").read_bytes() == DATA, "a file is the store's only once it is stored"


async def test_content_that_is_there_already_needs_no_room(
    store: LocalArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put("tenant", DATA)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(blobs.Incoming, "write", full)

    assert await store.put("tenant", DATA) == DIGEST


async def test_content_is_on_the_disk_before_it_has_its_name(
    store: LocalArtifactStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(handle: int) -> None:
        order.append("directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real_fsync(handle)

    def replace(self: Path, target: Path) -> Path:
        order.append("rename")
        return real_replace(self, target)

    await store.put("tenant", b"makes the tenant's folder")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    await store.put("tenant", DATA)

    made = order.count("directory") - 1
    assert order == ["file", *["directory"] * made, "rename", "directory"]

    order.clear()
    await store.put("tenant", DATA)
    assert order == ["directory"], "whoever else put it may not have made its name durable yet"


@pytest.fixture
def writers() -> Any:
    started: list[subprocess.Popen[str]] = []

    def start(root: Path, mode: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.unit.artifacts.writer_process", str(root), "tenant", mode]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


async def test_a_killed_writer_leaves_a_file_that_is_swept_an_hour_later(root: Path, writers: Any) -> None:
    process = writers(root, "endless")
    assert process.stdout.readline() == "writing\n"
    process.kill()
    process.wait()
    (left,) = files_below(root)
    assert left.startswith(".incoming/"), "nothing half-written has an artifact's name"

    await LocalArtifactStore(root).start()
    assert files_below(root) == [left], "it could belong to a writer at work"

    an_hour_ago = time.time() - 3601
    os.utime(root / left, (an_hour_ago, an_hour_ago))
    await LocalArtifactStore(root).start()
    assert files_below(root) == []


async def test_several_processes_put_the_same_content_at_once(root: Path, writers: Any) -> None:
    processes = [writers(root, "shared") for _ in range(3)]

    digests = {process.communicate(timeout=60)[0] for process in processes}

    assert [process.returncode for process in processes] == [0, 0, 0]
    (lines,) = digests
    store = LocalArtifactStore(root)
    for number, digest in enumerate(lines.split()):
        assert await store.read("tenant", digest) == b"shared %d" % number * 2000
    assert len(files_below(root)) == 40


async def test_sweeping_does_not_mind_a_second_sweeper(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalArtifactStore(root)
    await store.start()
    left = root / ".incoming" / "left"
    left.write_bytes(b"")
    os.utime(left, (0, 0))
    real = Path.unlink

    def second_to_come(self: Path, missing_ok: bool = False) -> None:
        real(self)
        real(self)

    monkeypatch.setattr(Path, "unlink", second_to_come)
    await store.start()

    assert files_below(root) == []


async def test_a_store_without_a_usable_directory_says_so_at_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(Unavailable):
        await LocalArtifactStore(tmp_path / "file" / "artifacts").start()


async def test_a_thread_whose_caller_gave_up_is_waited_for() -> None:
    ended: list[int] = []

    def work() -> None:
        time.sleep(0.2)
        ended.append(1)
        raise RuntimeError("nobody hears this")

    task = asyncio.create_task(threads.in_thread(work))
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert ended == [1]
