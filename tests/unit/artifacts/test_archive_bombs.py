"""An upload costs no more memory, disk or time than the limits say, whatever it claims about itself."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import tempfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from codeagent.artifacts.archive import ArchiveLimits, normalise
from codeagent.errors import Rejected
from tests.unit.artifacts.samples import (
    END,
    PACKERS,
    Uploads,
    directory,
    file,
    hard_link,
    header,
    padded,
    pax,
    symlink,
    tar_of,
    zip_of,
)

SMALL = ArchiveLimits(unpacked_bytes=10_000, file_bytes=4_000, entries=20, path_bytes=50, depth=5)
MIB = 1 << 20


def noise(count: int) -> bytes:
    return os.urandom(count)


@pytest.mark.parametrize("kind", [*PACKERS, "zip"])
def test_limits_are_inclusive(uploads: Uploads, kind: str) -> None:
    def packed(*entries: tuple[str, bytes]) -> bytes:
        return zip_of(*entries) if kind == "zip" else PACKERS[kind](tar_of(*(file(*entry) for entry in entries)))

    uploads.normalised(packed(("a", noise(4000)), ("b", noise(4000)), ("c", noise(2000))), SMALL)
    uploads.normalised(packed(*((str(n), b"") for n in range(20))), SMALL)
    uploads.normalised(packed(("n" * 50, b"x"), ("a/b/c/d/e", b"x")), SMALL)

    assert uploads.refused(packed(("a", noise(4001))), SMALL) == "archive_too_large"
    assert uploads.refused(packed(("a", noise(4000)), ("b", noise(4000)), ("c", noise(2001))), SMALL) == (
        "archive_too_large"
    )
    assert uploads.refused(packed(*((str(n), b"") for n in range(21))), SMALL) == "archive_too_large"
    assert uploads.refused(packed(("n" * 51, b"x")), SMALL) == "archive_too_large"
    assert uploads.refused(packed(("a/b/c/d/e/f", b"x")), SMALL) == "archive_too_large"


def test_one_name_is_bounded_as_the_file_system_bounds_it(uploads: Uploads) -> None:
    uploads.normalised(tar_of(file("n" * 255)))

    assert uploads.refused(tar_of(file("ü" * 128))) == "archive_too_large"


def test_directories_nobody_listed_count_as_well(uploads: Uploads) -> None:
    archive = tar_of(*(file(f"{n}/{n}/{n}") for n in range(7)))

    assert uploads.refused(archive, SMALL) == "archive_too_large"


def test_link_targets_are_bounded(uploads: Uploads) -> None:
    far = "a/" * 200 + "f"

    assert uploads.refused(tar_of(file("f"), symlink("link", far))) == "archive_link_outside"
    assert uploads.refused(tar_of(file("f"), symlink("link", "x" * 2000))) == "archive_link_outside"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_stream_of_zeros_is_stopped_at_the_ratio(uploads: Uploads, pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(tar_of(file("zeros", bytes(8 * MIB))))

    assert len(bomb) < 40_000
    assert uploads.refused(bomb) == "archive_too_large"


def test_a_zip_of_zeros_is_stopped_at_the_ratio(uploads: Uploads) -> None:
    assert uploads.refused(zip_of(("zeros", bytes(8 * MIB)))) == "archive_too_large"


def test_small_uploads_may_compress_as_well_as_they_like(uploads: Uploads) -> None:
    assert uploads.normalised(zip_of(("zeros", bytes(MIB - 1)))).summary.unpacked_bytes == MIB - 1


def test_what_lies_behind_the_end_of_a_tar_is_counted_too(uploads: Uploads) -> None:
    assert uploads.refused(gzip.compress(tar_of(file("a")) + bytes(8 * MIB))) == "archive_too_large"


def test_what_is_left_out_is_counted_while_it_is_read(uploads: Uploads) -> None:
    assert uploads.refused(gzip.compress(tar_of(file(".git/zeros", bytes(8 * MIB)), file("a")))) == "archive_too_large"


def test_hard_links_cannot_multiply_a_file(uploads: Uploads) -> None:
    archive = tar_of(file("a", noise(4000)), hard_link("b", "a"), hard_link("c", "a"))

    assert uploads.refused(archive, SMALL) == "archive_too_large"


@pytest.mark.parametrize("real", [5_000, 1 << 40, (1 << 62) - 1])
def test_holes_count_like_content(uploads: Uploads, real: int) -> None:
    archive = pax((b"GNU.sparse.size", b"%d" % real), (b"GNU.sparse.map", b"0,1")) + header(b"a", size=1)

    assert uploads.refused(archive + padded(b"x") + END, SMALL) == "archive_too_large"


def test_a_map_of_more_holes_than_there_may_be_entries_is_not_read(uploads: Uploads) -> None:
    record = pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"1"))

    assert uploads.refused(record + header(b"a", size=512) + padded(b"1000000\n"), SMALL) == "archive_too_large"


def test_a_header_that_promises_more_than_follows_reserves_nothing(uploads: Uploads) -> None:
    assert uploads.refused(header(b"a", size=b"\x80" + bytes(3) + b"\x7f" * 8)) == "archive_unreadable"


def zip_bomb_that_lies(declared: int) -> bytes:
    """One entry of 1 MiB that says, in both of its headers, to be `declared` bytes."""
    archive = bytearray(zip_of(("bomb", bytes(MIB - 100))))
    central = archive.index(b"PK\1\2")
    struct.pack_into("<L", archive, 22, declared)
    struct.pack_into("<L", archive, central + 24, declared)
    return bytes(archive)


def test_a_zip_entry_may_not_unpack_to_more_than_it_says(uploads: Uploads) -> None:
    assert uploads.refused(zip_bomb_that_lies(10)) == "archive_too_large"


def overlapping_zip(copies: int) -> bytes:
    """Many directory entries for the same compressed bytes."""
    one = zip_of(("f0", noise(3000)))
    start = one.index(b"PK\1\2")
    end = one.index(b"PK\5\6")
    central = one[start:end]
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, copies, copies, len(central) * copies, start, 0)
    return one[:start] + central * copies + tail


def test_zip_entries_that_share_their_bytes_are_refused(uploads: Uploads) -> None:
    assert uploads.refused(overlapping_zip(2)) == "archive_too_large"


def quoted_overlap_zip() -> bytes:
    """The second entry lies inside the first one's compressed bytes, headers and all."""
    inner = zip_of(("inner", b"x" * 50), method=zipfile.ZIP_STORED)
    local_inner = inner[: inner.index(b"PK\1\2")]
    outer = zip_of(("outer", local_inner), method=zipfile.ZIP_STORED)
    start = outer.index(b"PK\1\2", len(local_inner))
    central_outer = outer[start : outer.rindex(b"PK\5\6")]
    central_inner = bytearray(inner[inner.index(b"PK\1\2") : inner.rindex(b"PK\5\6")])
    struct.pack_into("<L", central_inner, 42, 30 + len("outer"))
    central = central_outer + bytes(central_inner)
    return outer[:start] + central + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, len(central), start, 0)


def test_a_zip_entry_inside_another_is_refused(uploads: Uploads) -> None:
    assert uploads.refused(quoted_overlap_zip()) == "archive_too_large"


def test_a_zip_with_more_entries_than_it_counts_is_refused(uploads: Uploads) -> None:
    archive = bytearray(zip_of(*((str(n), b"") for n in range(30))))
    end = archive.rindex(b"PK\5\6")
    struct.pack_into("<2H", archive, end + 8, 1, 1)

    assert uploads.refused(bytes(archive), SMALL) == "archive_unreadable"


def many_empty_members() -> bytes:
    return gzip.compress(b"") * 70_000 + gzip.compress(tar_of(file("a")))


def endless_extensions() -> bytes:
    return (header(b"x", b"g", size=0)) * 100_000 + header(b"a") + END


def compressed_extensions() -> bytes:
    return gzip.compress(endless_extensions())


def fat_extensions() -> bytes:
    record = pax((b"comment", bytes(1_000_000)))
    return record * 200 + header(b"a") + END


def many_records() -> bytes:
    return pax(*(((b"k", b""),) * 100_000)) + header(b"a") + END


def many_segments() -> bytes:
    segments = b"0,0," * 200_000 + b"0,1"
    record = pax((b"GNU.sparse.size", b"1"), (b"GNU.sparse.map", segments))
    return record + header(b"a", size=1) + padded(b"x") + END


def endless_sparse_header() -> bytes:
    block = bytearray(header(b"a", b"S", size=0, magic=b"ustar  \0"))
    block[482] = 1
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + (bytes(504) + b"\1" + bytes(7)) * 300_000


def map_without_end() -> bytes:
    record = pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"1"))
    return record + header(b"a", size=20 * MIB) + b"9999999999999999999\n" + b"0\n" * (10 * MIB)


def links_that_walk_far() -> bytes:
    target = "d/../" * 25 + "d"
    return tar_of(directory("d"), file("f"), *(symlink(f"l{n}", target) for n in range(5_000)))


def dictionary_of_a_gigabyte() -> bytes:
    packed = bytearray(lzma.compress(tar_of(file("a"))))
    # After twelve bytes of stream header, the block's: filter 0x21 with one byte of properties, 36 for 1 GiB.
    packed[packed.index(b"\x21\x01", 12) + 2] = 36
    header_size = (packed[12] + 1) * 4
    struct.pack_into("<L", packed, 12 + header_size - 4, zlib.crc32(packed[12 : 12 + header_size - 4]))
    return bytes(packed)


@pytest.mark.parametrize("bomb", [
    many_empty_members,
    endless_extensions,
    fat_extensions,
    many_records,
    many_segments,
    endless_sparse_header,
    map_without_end,
    dictionary_of_a_gigabyte,
    compressed_extensions,
], ids=lambda bomb: bomb.__name__)  # fmt: skip
def test_what_is_expensive_to_read_is_refused_quickly(uploads: Uploads, bomb: Callable[[], bytes]) -> None:
    data = bomb()
    begin = time.process_time()

    assert uploads.refused(data, ArchiveLimits(entries=20_000)) in ("archive_too_large", "archive_unreadable")
    assert time.process_time() - begin < 10


def test_links_that_walk_far_cost_what_links_cost(uploads: Uploads) -> None:
    data = links_that_walk_far()
    begin = time.process_time()

    assert uploads.normalised(data).summary.links == 5_000
    assert time.process_time() - begin < 10


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_memory_stays_small_while_files_are_large(tmp_path: Path, kind: str) -> None:
    upload, destination = tmp_path / "upload", tmp_path / "result"
    data = bytes(60 * MIB)
    upload.write_bytes(zip_of(("a", data)) if kind == "zip" else PACKERS[kind](tar_of(file("a", data))))

    # The dictionary an .xz asks for, 8 MiB here, is part of it.
    assert peak_memory(lambda: normalise(upload, destination, ArchiveLimits(ratio=10**9))) < 12 * MIB


def test_memory_stays_small_while_names_are_long(tmp_path: Path) -> None:
    upload, destination = tmp_path / "upload", tmp_path / "result"
    upload.write_bytes(zip_of(*((f"{n:060000}", b"") for n in range(200))))

    def refused() -> None:
        with pytest.raises(Rejected):
            normalise(upload, destination, ArchiveLimits())

    assert peak_memory(refused) < MIB


def peak_memory(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_contents_never_get_a_name_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload, destination = tmp_path / "upload", tmp_path / "result"
    upload.write_bytes(tar_of(file("a"), file("b/c")))
    seen: list[list[str]] = []
    real = tempfile.TemporaryFile

    class Watched(io.BytesIO):
        def write(self, data: bytes, /) -> int:  # type: ignore[override]
            seen.append(sorted(path.name for path in tmp_path.rglob("*")))
            return super().write(data)

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: Watched())
    normalise(upload, destination, ArchiveLimits())

    assert seen == [["upload"], ["upload"]]
    with real(dir=tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == ["result", "upload"]


def test_a_refusal_names_the_limit_not_the_content(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(tar_of(file("a", b"secret" * 1000)))

    with pytest.raises(Rejected, match="4000 bytes") as refusal:
        normalise(tmp_path / "upload", tmp_path / "result", SMALL)

    assert "secret" not in refusal.value.detail
