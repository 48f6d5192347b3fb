"""What every artifact store promises, wherever it keeps its bytes."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from codeagent.artifacts.store import CHUNK_BYTES, ArtifactStore, LocalArtifactStore
from codeagent.errors import NotFound, Rejected
from codeagent.messages.values import Digest

DATA = b"some bytes"
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
LARGE = random.Random(7).randbytes(3 * CHUNK_BYTES + 17)
NO_DIGESTS = [
    "",
    "sha256:",
    hashlib.sha256(DATA).hexdigest(),
    DIGEST.upper(),
    DIGEST + "\n",
    DIGEST + "/..",
    "sha256:" + "../" * 21 + "x",
    "sha512:" + "0" * 64,
    "sha256:" + "g" * 64,
    "sha256:" + "٠" * 64,
]


@pytest.fixture(params=["local"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    stores: dict[str, ArtifactStore] = {"local": LocalArtifactStore(tmp_path / "artifacts")}
    chosen = stores[request.param]
    await chosen.start()
    return chosen


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def collected(chunks: AsyncIterator[bytes]) -> list[bytes]:
    return [chunk async for chunk in chunks]


@pytest.mark.parametrize("data", [b"", DATA, LARGE])
async def test_what_was_put_is_read_under_its_digest(store: ArtifactStore, data: bytes) -> None:
    digest = await store.put("tenant", data)

    assert TypeAdapter(Digest).validate_python(digest) == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert await store.read("tenant", digest) == data
    assert await store.size("tenant", digest) == len(data)
    assert await store.exists("tenant", digest)
    assert (await store.path("tenant", digest)).read_bytes() == data


async def test_putting_again_changes_nothing(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)

    digests = {
        await store.put("tenant", DATA),
        await store.put("tenant", DATA),
        (await store.put_stream("tenant", stream(DATA), 100))[0],
        (await store.put_file("tenant", tmp_path / "file"))[0],
    }

    assert digests == {DIGEST}
    assert await store.read("tenant", DIGEST) == DATA


async def test_a_file_is_taken_over(store: ArtifactStore, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(LARGE)

    digest, size = await store.put_file("tenant", path)

    assert size == len(LARGE)
    assert await store.read("tenant", digest) == LARGE
    assert not path.exists()


@pytest.mark.parametrize("chunks", [(), (b"",), (b"a", b"", b"b" * 700_000, b"c"), (b"x",) * 1000])
async def test_a_stream_is_put_together(store: ArtifactStore, chunks: tuple[bytes, ...]) -> None:
    data = b"".join(chunks)

    digest, size = await store.put_stream("tenant", stream(*chunks), len(data))

    assert size == len(data)
    assert await store.read("tenant", digest) == data


@pytest.mark.parametrize("chunks", [(b"x" * 101,), (b"x",) * 101, (b"x" * 100, b"y")])
async def test_a_stream_beyond_its_limit_is_refused_at_once(store: ArtifactStore, chunks: tuple[bytes, ...]) -> None:
    taken: list[bytes] = []

    async def endless() -> AsyncIterator[bytes]:
        for chunk in (*chunks, *[b"more"] * 50):
            taken.append(chunk)
            yield chunk

    with pytest.raises(Rejected) as refusal:
        await store.put_stream("tenant", endless(), 100)

    assert (refusal.value.code, refusal.value.status) == ("payload_too_large", 413)
    assert len(taken) == len(chunks), "nothing is taken that is not wanted"
    assert not await store.exists("tenant", f"sha256:{hashlib.sha256(b''.join(chunks)).hexdigest()}")


async def test_a_stream_that_breaks_leaves_nothing(store: ArtifactStore) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield DATA
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await store.put_stream("tenant", broken(), 100)

    assert not await store.exists("tenant", DIGEST)


async def test_tenants_do_not_see_each_other(store: ArtifactStore) -> None:
    await store.put("one", DATA)

    assert await store.size("two", DIGEST) is None
    assert not await store.exists("two", DIGEST)
    for reading in (store.read("two", DIGEST), store.path("two", DIGEST), store.open_range("two", DIGEST, 0, 1)):
        with pytest.raises(NotFound):
            await reading


@pytest.mark.parametrize("digest", [*NO_DIGESTS, "sha256:" + "0" * 64])
async def test_what_is_not_there_is_not_found(store: ArtifactStore, digest: str) -> None:
    await store.put("tenant", DATA)

    assert await store.size("tenant", digest) is None
    assert not await store.exists("tenant", digest)
    for reading in (
        store.read("tenant", digest),
        store.path("tenant", digest),
        store.open_range("tenant", digest, 0, 1),
    ):
        with pytest.raises(NotFound):
            await reading


async def test_reading_respects_its_limit(store: ArtifactStore) -> None:
    await store.put("tenant", DATA)

    assert await store.read("tenant", DIGEST, len(DATA)) == DATA
    with pytest.raises(Rejected) as refusal:
        await store.read("tenant", DIGEST, len(DATA) - 1)
    assert (refusal.value.code, refusal.value.status) == ("payload_too_large", 413)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, len(LARGE)),
        (0, len(LARGE) + 1),
        (0, 0),
        (0, 1),
        (1, len(LARGE)),
        (CHUNK_BYTES - 1, CHUNK_BYTES + 1),
        (CHUNK_BYTES, 2 * CHUNK_BYTES),
        (len(LARGE) - 1, len(LARGE)),
        (len(LARGE), len(LARGE)),
        (5, 10**15),
    ],
)
async def test_a_range_is_read_in_small_chunks(store: ArtifactStore, start: int, end: int) -> None:
    digest = await store.put("tenant", LARGE)

    chunks = await collected(await store.open_range("tenant", digest, start, end))

    assert b"".join(chunks) == LARGE[start:end]
    assert all(0 < len(chunk) <= CHUNK_BYTES for chunk in chunks)


@pytest.mark.parametrize(("start", "end"), [(-1, 1), (2, 1), (len(DATA) + 1, len(DATA) + 2)])
async def test_an_impossible_range_is_refused_before_the_first_chunk(
    store: ArtifactStore, start: int, end: int
) -> None:
    await store.put("tenant", DATA)

    with pytest.raises(Rejected) as refusal:
        await store.open_range("tenant", DIGEST, start, end)

    assert (refusal.value.code, refusal.value.status) == ("range_not_satisfiable", 416)


async def test_the_same_content_may_be_put_by_many_at_once(store: ArtifactStore) -> None:
    digests = await asyncio.gather(
        *(store.put("tenant", LARGE) for _ in range(10)),
        *(store.put_stream("tenant", stream(LARGE[:100], LARGE[100:]), len(LARGE)) for _ in range(10)),
    )

    assert len({digest if isinstance(digest, str) else digest[0] for digest in digests}) == 1
    assert await store.read("tenant", f"sha256:{hashlib.sha256(LARGE).hexdigest()}") == LARGE


async def test_starting_again_keeps_everything(store: ArtifactStore) -> None:
    await store.put("tenant", DATA)

    await store.start()

    assert await store.read("tenant", DIGEST) == DATA
