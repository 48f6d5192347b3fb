"""What is not a plain tree of files is refused, each kind of trouble under its own code."""

from __future__ import annotations

import gzip
import stat
import tarfile
from typing import Any

import pytest

from tests.unit.artifacts.samples import (
    END,
    LINK_MODE,
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
