"""Damaged, cut off and lying archives are refused, and a failing disk leaves nothing half-written."""

from __future__ import annotations

import errno
import gzip
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from codeagent.artifacts import archive as archive_module
from codeagent.artifacts.archive import ArchiveLimits, normalise
from codeagent.errors import Unavailable
from tests.unit.artifacts.samples import (
    BLOCK,
    END,
    PACKERS,
    Uploads,
    file,
    header,
    padded,
    pax,
    tar_of,
    zip_of,
)


@pytest.mark.parametrize("data", [
    b"",
    b"x",
    b"#!/bin/sh\necho hello\n" * 100,
    b"7z\xbc\xaf\x27\x1c" + bytes(1000),
    b"\x1f\x8b",
    gzip.compress(b"not a tar"),
    gzip.compress(b""),
    gzip.compress(os.urandom(5000)),
    gzip.compress(tar_of(file("a"))) + b"rubbish",
    b"BZh9 not bzip2",
    b"\xfd7zXZ\0 not xz",
    b"PK\3\4 not zip",
    header(b"a", size=b"\x80" + b"\xff" * 11) + END,
    header(b"a", size=b"\xff" * 12) + END,
    header(b"a", size=b"-0000000001\0") + END,
    header(b"a", size=b"0x000000010\0") + END,
    header(b"a", b"x", size=2 << 20) + bytes(2 << 20) + header(b"b") + END,
    pax((b"size", b"-1")) + header(b"a") + END,
    pax((b"size", b"9" * 30)) + header(b"a") + END,
    header(b"pax", b"x", size=BLOCK) + b"0 a=b\n".ljust(BLOCK, b"\1") + header(b"a") + END,
    header(b"pax", b"x", size=BLOCK) + b"9999 a=b\n".ljust(BLOCK, b"\1") + header(b"a") + END,
], ids=range(21))  # fmt: skip
def test_what_is_no_archive_or_a_damaged_one_is_refused(uploads: Uploads, data: bytes) -> None:
    assert uploads.refused(data) == "archive_unreadable"


@pytest.mark.parametrize("kind", [*PACKERS, "zip"])
def test_an_archive_cut_off_anywhere_is_refused(uploads: Uploads, kind: str) -> None:
    data = os.urandom(700)
    whole = (
        zip_of(("a", data), ("b", data)) if kind == "zip" else PACKERS[kind](tar_of(file("a", data), file("b", data)))
    )
    # A tar is complete with its first block of zeros; what follows is padding.
    content = 2 * 3 * BLOCK + BLOCK if kind == "tar" else len(whole)

    for length in [*range(0, content, 97), content - 1]:
        assert uploads.refused(whole[:length]) == "archive_unreadable", length


@pytest.mark.parametrize("kind", [*PACKERS, "zip"])
def test_a_flipped_bit_never_yields_other_content(uploads: Uploads, kind: str) -> None:
    data = bytes(range(256)) * 3
    whole = zip_of(("a", data)) if kind == "zip" else PACKERS[kind](tar_of(file("a", data)))
    if kind == "tar":
        whole = whole[:BLOCK]  # only the header has a checksum
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        try:
            result = uploads.normalised(bytes(damaged) + (padded(data) + END if kind == "tar" else b""))
        except Exception as error:
            assert getattr(error, "status", None) == 422, error
        else:
            assert set(result.files.values()) == {data}


@pytest.mark.parametrize("sparse", [
    [(b"GNU.sparse.size", b"10"), (b"GNU.sparse.map", b"5,1,2,2")],
    [(b"GNU.sparse.size", b"10"), (b"GNU.sparse.map", b"5,1,9,2")],
    [(b"GNU.sparse.size", b"10"), (b"GNU.sparse.map", b"0,2")],
    [(b"GNU.sparse.size", b"10"), (b"GNU.sparse.map", b"0,3,5")],
    [(b"GNU.sparse.size", b"10"), (b"GNU.sparse.map", b"-1,3")],
    [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"10")],
    [(b"GNU.sparse.major", b"1")],
], ids=["disordered", "beyond the end", "too few bytes", "odd", "negative", "no map", "no size"])  # fmt: skip
def test_files_with_impossible_holes_are_refused(uploads: Uploads, sparse: list[tuple[bytes, bytes]]) -> None:
    assert uploads.refused(pax(*sparse) + header(b"a", size=3) + padded(b"abc") + END) == "archive_unreadable"


def zip_with(**changes: int) -> bytes:
    """A zip whose directory says something else than its entry; the offsets are those of the format."""
    fields = {"method": (10, 2), "checksum": (16, 4), "packed": (20, 4), "size": (24, 4), "offset": (42, 4)}
    archive = bytearray(zip_of(("a", b"content" * 9)))
    for field, value in changes.items():
        start, length = fields[field]
        start += archive.index(b"PK\1\2")
        archive[start : start + length] = value.to_bytes(length, "little")
    return bytes(archive)


@pytest.mark.parametrize("changes", [
    {"checksum": 1},
    {"size": 64},
    {"packed": 5},
    {"packed": 5000},
    {"offset": 1},
    {"offset": 0xFFFFFFF0},
    {"offset": 0xFFFFFFFF},
    {"method": 14},
    {"method": 0},
])  # fmt: skip
def test_zips_whose_directory_lies_are_refused(uploads: Uploads, changes: dict[str, int]) -> None:
    assert uploads.refused(zip_with(**changes)) in ("archive_unreadable", "archive_too_large")


def test_a_zip_whose_names_disagree_is_refused(uploads: Uploads) -> None:
    archive = zip_of(("harmless", b"x"))
    start = archive.index(b"PK\1\2")

    assert uploads.refused(archive[:start].replace(b"harmless", b"../../up") + archive[start:]) == "archive_unreadable"


def test_a_program_with_a_zip_behind_it_is_no_zip(uploads: Uploads) -> None:
    assert uploads.refused(b"MZ" + zip_of(("a", b"x"))) == "archive_unreadable"


class FullDisk(io.BytesIO):
    def write(self, data: Any, /) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_said_to_be_one_and_nothing_stays(
    uploads: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, destination = tmp_path / "upload", tmp_path / "result"
    upload.write_bytes(tar_of(file("a")))
    monkeypatch.setattr(archive_module.tempfile, "TemporaryFile", lambda dir: FullDisk())

    with pytest.raises(Unavailable) as failure:
        normalise(upload, destination, ArchiveLimits())

    assert (failure.value.code, failure.value.retryable) == ("storage_full", True)
    assert not destination.exists()


def test_a_disk_that_fills_up_while_the_result_is_written_leaves_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullTar(archive_module.PlainTar):
        def file(self, *_: Any, **__: Any) -> None:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

    upload, destination = tmp_path / "upload", tmp_path / "result"
    upload.write_bytes(tar_of(file("a")))
    monkeypatch.setattr(archive_module, "PlainTar", FullTar)

    with pytest.raises(Unavailable, match="full"):
        normalise(upload, destination, ArchiveLimits())

    assert not destination.exists()


def test_zip_comments_do_not_hide_the_directory(uploads: Uploads) -> None:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("a", b"x")
        archive.comment = b"PK\5\6" + bytes(30)

    assert uploads.normalised(raw.getvalue()).files == {"a": b"x"}
