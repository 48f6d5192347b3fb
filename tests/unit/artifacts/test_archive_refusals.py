"""What is not a plain tree of files is refused, each kind of trouble under its own code."""

from __future__ import annotations

import errno
import gzip
import io
import os
import stat
import tarfile
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
    LINK_MODE,
    PACKERS,
    Uploads,
    directory,
    file,
    hard_link,
    header,
    member,
    padded,
    pax,
    symlink,
    tar_of,
    zip_entry,
    zip_of,
)

OUTSIDE = [
    "../evil",
    "a/../../evil",
    "a/../b",
    "..",
    "/etc/passwd",
    "//server/share",
    "\\windows",
    "..\\evil",
    "a\\..\\..\\evil",
    "C:evil",
    "c:/evil",
    "C:\\evil",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_paths_that_lead_outside_are_refused_in_a_tar(uploads: Uploads, name: str) -> None:
    assert uploads.refused(tar_of(file("ok"), file(name))) == "archive_path_outside"


@pytest.mark.parametrize("name", OUTSIDE)
def test_paths_that_lead_outside_are_refused_in_a_zip(uploads: Uploads, name: str) -> None:
    assert uploads.refused(zip_of(("ok", b""), (name, b"x"))) == "archive_path_outside"


@pytest.mark.parametrize("name", OUTSIDE)
def test_paths_that_lead_outside_are_refused_in_extended_headers(uploads: Uploads, name: str) -> None:
    by_pax = pax((b"path", name.encode())) + header(b"harmless") + END
    by_gnu = header(b"././@LongLink", b"L", size=len(name) + 1) + padded(name.encode() + b"\0") + header(b"ok") + END

    assert uploads.refused(by_pax) == uploads.refused(by_gnu) == "archive_path_outside"


def test_a_path_split_over_two_fields_is_checked_as_one(uploads: Uploads) -> None:
    block = bytearray(header(b"evil"))
    block[345:347] = b".."
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)

    assert uploads.refused(bytes(block) + END) == "archive_path_outside"


@pytest.mark.parametrize("archive", [
    header(b"") + END,
    header(b"caf\xe9") + END,
    pax((b"path", b"nul\0inside")) + header(b"ok") + END,
    pax((b"path", b"\xff\xfe")) + header(b"ok") + END,
    header(b".") + END,
    zip_of(("", b"x")),
], ids=["empty", "not UTF-8", "NUL", "not UTF-8 in pax", "a file as the top", "empty in a zip"])  # fmt: skip
def test_names_that_are_no_names_are_refused(uploads: Uploads, archive: bytes) -> None:
    assert uploads.refused(archive) == "archive_path_outside"


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("link", "../outside"),
        ("link", ".."),
        ("a/link", "../../outside"),
        ("a/link", "../a/../../outside"),
        ("link", "/etc/passwd"),
        ("link", "a/../../x"),
        ("link", "missing/../../x"),
    ],
)
def test_symbolic_links_that_lead_outside_are_refused(uploads: Uploads, name: str, target: str) -> None:
    assert uploads.refused(tar_of(file("a/file"), symlink(name, target))) == "archive_link_outside"
    assert uploads.refused(zip_of(("a/file", b""), (zip_entry(name, LINK_MODE), target.encode()))) == (
        "archive_link_outside"
    )


def test_an_empty_or_unnameable_link_target_is_refused(uploads: Uploads) -> None:
    assert uploads.refused(zip_of((zip_entry("link", LINK_MODE), b""))) == "archive_link_outside"
    assert uploads.refused(zip_of((zip_entry("link", LINK_MODE), b"a\0b"))) == "archive_link_outside"
    assert uploads.refused(zip_of((zip_entry("link", LINK_MODE), b"\xff"))) == "archive_path_outside"


@pytest.mark.parametrize("entries", [
    [symlink("here", "."), symlink("out", "here/..")],
    [symlink("out", "here/.."), symlink("here", ".")],
    [directory("a/b"), symlink("a/b/up", "../.."), symlink("out", "a/b/up/..")],
    [directory("a/b"), symlink("a/b/up", "../.."), symlink("s", "a/b/up"), symlink("a/out", "../s/../x")],
], ids=["through a link", "whatever the order", "deep", "through two links"])  # fmt: skip
def test_links_that_lead_outside_only_through_other_links_are_refused(uploads: Uploads, entries: list[Any]) -> None:
    assert uploads.refused(tar_of(file("f"), *entries)) == "archive_link_outside"


@pytest.mark.parametrize("entries", [
    [symlink("loop", "loop")],
    [symlink("a", "b"), symlink("b", "a")],
    [symlink("l0", "f"), *(symlink(f"l{n}", f"l{n - 1}") for n in range(1, 60))],
    [*(symlink(f"l{n}", f"l{n - 1}") for n in range(59, 0, -1)), symlink("l0", "f")],
    [symlink("d0", "."), *(symlink(f"d{n}", f"d{n - 1}/d{n - 1}") for n in range(1, 30))],
], ids=["itself", "each other", "a chain", "a chain backwards", "doubling"])  # fmt: skip
def test_links_no_kernel_would_follow_are_refused(uploads: Uploads, entries: list[Any]) -> None:
    assert uploads.refused(tar_of(file("f"), *entries)) == "archive_link_outside"


def test_a_chain_the_kernel_would_follow_is_kept(uploads: Uploads) -> None:
    chain = [symlink("l0", "f"), *(symlink(f"l{n}", f"l{n - 1}") for n in range(1, 40))]

    assert uploads.normalised(tar_of(file("f"), *chain)).summary.links == 40


@pytest.mark.parametrize(
    "target", ["../f", "/etc/passwd", "missing", "later", "a", "link/f", "f/../f", ".git/config", ""]
)
def test_hard_links_to_anything_but_an_earlier_file_are_refused(uploads: Uploads, target: str) -> None:
    archive = tar_of(
        file("f"), file("a/f"), file(".git/config"), symlink("link", "a"), hard_link("hard", target), file("later")
    )

    assert uploads.refused(archive) == "archive_link_outside"


@pytest.mark.parametrize("target", ["a", ".", "missing"])
@pytest.mark.parametrize(
    "below", [file("link/file"), directory("link/sub"), symlink("link/l", "x"), file("link/s/t/u")]
)
def test_nothing_is_placed_behind_a_link(uploads: Uploads, target: str, below: Any) -> None:
    assert uploads.refused(tar_of(directory("a"), symlink("link", target), below)) == "archive_link_outside"


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"D", b"M", b"Z"])
def test_devices_fifos_and_unknown_kinds_are_refused_in_a_tar(uploads: Uploads, kind: bytes) -> None:
    assert uploads.refused(tar_of(file("f"), (member("special", kind), b""))) == "archive_special_file"


@pytest.mark.parametrize("mode", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_devices_fifos_and_sockets_are_refused_in_a_zip(uploads: Uploads, mode: int) -> None:
    assert uploads.refused(zip_of((zip_entry("special", mode | 0o644), b""))) == "archive_special_file"


@pytest.mark.parametrize("entries", [
    [file("a"), file("a")],
    [file("a"), file("./a")],
    [file("a"), symlink("a", "b")],
    [symlink("a", "b"), file("a")],
    [file("a"), directory("a")],
    [directory("a"), file("a")],
    [file("a"), file("a/b")],
    [file("a/b"), file("a")],
    [file("b"), file("a"), hard_link("a", "b")],
    [directory("a"), symlink("a", "b")],
    [symlink("a", "b"), directory("a")],
], ids=lambda entries: "+".join(info.name + info.type.decode() for info, _ in entries))  # fmt: skip
def test_a_path_may_be_there_once(uploads: Uploads, entries: list[Any]) -> None:
    assert uploads.refused(tar_of(*entries)) == "archive_duplicate"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_path_may_be_there_once_in_a_zip(uploads: Uploads) -> None:
    assert uploads.refused(zip_of(("a", b"1"), ("a", b"2"))) == "archive_duplicate"


@pytest.mark.parametrize("archive", [
    END,
    END * 10,
    gzip.compress(END),
    zip_of(),
    tar_of(directory("only"), directory("only/directories")),
    tar_of(file(".git/HEAD")),
], ids=["tar", "padded tar", "tar.gz", "zip", "directories", "only version control"])  # fmt: skip
def test_an_upload_without_files_is_refused(uploads: Uploads, archive: bytes) -> None:
    assert uploads.refused(archive) == "archive_empty"


def test_encrypted_zips_are_refused(uploads: Uploads) -> None:
    archive = bytearray(zip_of(("secret", b"x" * 100)))
    archive[archive.index(b"PK\1\2") + 8] |= 1

    assert uploads.refused(bytes(archive)) == "archive_encrypted"


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
