"""Disks that fill up and processes that are killed: an artifact is complete and durable, or absent."""

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

from codeagent.artifacts import blobs, threads
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.errors import Unavailable
from tests.unit.artifacts.samples import files_below

DATA = b"some bytes"
HEX = hashlib.sha256(DATA).hexdigest()
DIGEST = f"sha256:{HEX}"


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
