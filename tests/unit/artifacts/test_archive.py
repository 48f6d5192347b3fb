"""An upload of any common kind becomes one plain, deterministic .tar.gz."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from codeagent.artifacts.archive import ArchiveLimits, normalise
from codeagent.sandboxes.archives import entries as sandbox_entries
from codeagent.sandboxes.protocol import Limits
from tests.conftest import unavailable
from tests.unit.artifacts.samples import (
    END,
    LINK_MODE,
    PACKERS,
    Uploads,
    checked,
    directory,
    file,
    hard_link,
    header,
    padded,
    pax,
    symlink,
    tar_of,
    zip_entry,
    zip_of,
)

TREE = (
    directory("top"),
    file("top/z.txt", b"last"),
    file("top/run.sh", b"#!/bin/sh\n", mode=0o700),
    symlink("top/link", "z.txt"),
    directory("top/empty"),
)
EXPECTED = {
    "top": ("directory", b"", 0o755),
    "top/empty": ("directory", b"", 0o755),
    "top/link": ("link", "z.txt", 0o755),
    "top/run.sh": ("file", b"#!/bin/sh\n", 0o755),
    "top/z.txt": ("file", b"last", 0o644),
}


@pytest.mark.parametrize("kind", PACKERS)
def test_every_kind_of_tar_is_recognised_by_its_content(uploads: Uploads, kind: str) -> None:
    result = uploads.normalised(PACKERS[kind](tar_of(*TREE)))

    assert result.entries == EXPECTED
    assert (result.summary.files, result.summary.links, result.summary.directories) == (2, 1, 2)
    assert (result.summary.unpacked_bytes, result.summary.packed_bytes) == (14, len(result.packed))


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["short", "d" * 60 + "/" + "n" * 90, "ü/" + "é" * 40])
def test_names_of_any_length_survive_in_every_tar_dialect(uploads: Uploads, layout: int, name: str) -> None:
    assert uploads.normalised(tar_of(file(name, b"data"), layout=layout)).files == {name: b"data"}


@pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_link_targets_survive(uploads: Uploads, layout: int) -> None:
    target = "/".join(["directory"] * 30)

    result = uploads.normalised(tar_of(file("a"), symlink("link", target), layout=layout))

    assert result.entries["link"][:2] == ("link", target)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_gives_the_same_bytes_as_the_same_tree_in_a_tar(uploads: Uploads, method: int) -> None:
    packed = zip_of(
        (zip_entry("top/z.txt", stat.S_IFREG | 0o600), b"last"),
        (zip_entry("top/run.sh", stat.S_IFREG | 0o755), b"#!/bin/sh\n"),
        (zip_entry("top/link", LINK_MODE), b"z.txt"),
        (zip_entry("top/empty/", stat.S_IFDIR | 0o700), b""),
        method=method,
    )

    result = uploads.normalised(packed)

    assert result.entries == EXPECTED
    assert result.packed == uploads.normalised(tar_of(*TREE)).packed


def test_the_result_does_not_depend_on_order_times_owners_or_listed_directories(uploads: Uploads) -> None:
    info, data = file("top/z.txt", b"last", mode=0o4640)
    info.mtime, info.uid, info.gid, info.uname = 1_700_000_000.5, 1000, 1000, "somebody"
    other = (symlink("./top/link", "z.txt"), directory("top//empty/"), (info, data), TREE[2])

    result = uploads.normalised(gzip.compress(tar_of(*other)))

    assert result.packed == uploads.normalised(tar_of(*TREE)).packed
    assert [info.name for info in result.infos] == sorted(EXPECTED)
    assert {(info.mtime, info.uid, info.gid, info.uname, info.gname) for info in result.infos} == {(0, 0, 0, "", "")}
    assert result.packed[4:8] == bytes(4), "the time in the gzip header"


def test_paths_that_differ_only_in_case_are_two_files(uploads: Uploads) -> None:
    assert uploads.normalised(tar_of(file("README", b"1"), file("readme", b"2"))).files == {
        "README": b"1",
        "readme": b"2",
    }


@pytest.mark.parametrize("name", ["with space", "-rf", "a\nb", "a\\b", "\u202eodd", "~", "%2e%2e", "a..b", "..."])
def test_odd_names_are_only_names(uploads: Uploads, name: str) -> None:
    assert uploads.normalised(tar_of(file(name))).files == {name: b"x"}


@pytest.mark.parametrize(
    "name",
    [".git/config", "sub/.git/HEAD", ".GIT/x", ".git", ".git./x", "git~1/x", ".g\u200cit/x", "a\\.git\\config", ".git::$INDEX/x"],
)  # fmt: skip
def test_version_control_directories_are_left_out_and_counted(uploads: Uploads, name: str) -> None:
    result = uploads.normalised(tar_of(file(name, b"[core] fsmonitor=evil"), file(".gitignore"), file("digit")))

    assert set(result.files) == {".gitignore", "digit"}
    assert result.summary.dropped == 1


def test_a_large_file_of_the_left_out_directory_is_no_reason_to_refuse(uploads: Uploads) -> None:
    archive = tar_of(file(".git/objects/pack/p.pack", os.urandom(5000)), file("a"))

    assert uploads.normalised(archive, ArchiveLimits(file_bytes=1000)).summary.dropped == 1


def test_hard_links_become_copies(uploads: Uploads) -> None:
    archive = tar_of(file("a/one", b"same", mode=0o755), hard_link("two", "./a/one"), hard_link("three", "two"))

    result = uploads.normalised(archive)

    assert result.files == {"a/one": b"same", "two": b"same", "three": b"same"}
    assert result.entries["three"][2] == 0o755
    assert result.summary.unpacked_bytes == 12


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("link", "a/file"),
        ("a/link", "../a/./file"),
        ("a/b/link", "../../missing/file"),
        ("link", "."),
        ("a/b/link", "../.."),
        ("link", "a//file/"),
        ("link", "C:\\x"),
    ],
)
def test_links_that_stay_inside_are_kept_as_written(uploads: Uploads, name: str, target: str) -> None:
    assert uploads.normalised(tar_of(file("a/file"), symlink(name, target))).entries[name][:2] == ("link", target)


def test_links_through_links_inside_are_kept(uploads: Uploads) -> None:
    archive = tar_of(file("deep/er/file"), symlink("door", "deep/er"), symlink("link", "door/../er/file"))

    assert uploads.normalised(archive).entries["link"][1] == "door/../er/file"


def test_zips_made_on_windows_have_backslashes_and_no_modes(uploads: Uploads) -> None:
    windows = zipfile.ZipInfo("placeholder")
    windows.filename, windows.create_system = "dir\\file.txt", 0

    assert uploads.normalised(zip_of((windows, b"x"))).entries["dir/file.txt"] == ("file", b"x", 0o644)


def test_zip_names_without_the_unicode_flag_are_utf8_or_else_the_old_code_page(uploads: Uploads) -> None:
    plain = zip_of(("aa.txt", b"1"), ("bb.txt", b"2"))
    odd = plain.replace(b"aa.txt", "é.txt".encode()).replace(b"bb.txt", b"\x81b.txt")

    assert set(uploads.normalised(odd).files) == {"é.txt", "üb.txt"}


def test_zips_for_large_files_are_read(uploads: Uploads, tmp_path: Path) -> None:
    info, raw = zipfile.ZipInfo("file"), tmp_path / "large.zip"
    with zipfile.ZipFile(raw, "w") as archive, archive.open(info, "w", force_zip64=True) as entry:
        entry.write(b"content")

    assert uploads.normalised(raw.read_bytes()).files == {"file": b"content"}


def test_streams_compressed_in_parallel_are_several_in_a_row(uploads: Uploads) -> None:
    archive = tar_of(*TREE)

    for name in ("tar.gz", "tar.bz2", "tar.xz"):
        pack = PACKERS[name]
        assert uploads.normalised(pack(archive[:700]) + pack(archive[700:]) + bytes(64)).entries == EXPECTED


OLD_SPARSE = checked(
    header(b"holes", b"S", size=3, magic=b"ustar  \0").ljust(512, b"\0")[:386]
    + b"%011o\0%011o\0" % (2, 1)
    + b"%011o\0%011o\0" % (7, 2)
    + bytes(48)
    + b"\0"
    + b"%011o\0" % 10
    + bytes(17)
)
SPARSE_MAP = b"2\n2\n1\n7\n2\n"
SPARSE = {
    "in the header": OLD_SPARSE + padded(b"abc"),
    "0.0": pax(
        (b"GNU.sparse.size", b"10"),
        (b"GNU.sparse.numblocks", b"2"),
        (b"GNU.sparse.offset", b"2"),
        (b"GNU.sparse.numbytes", b"1"),
        (b"GNU.sparse.offset", b"7"),
        (b"GNU.sparse.numbytes", b"2"),
    )
    + header(b"holes", size=3)
    + padded(b"abc"),
    "0.1": pax((b"GNU.sparse.name", b"holes"), (b"GNU.sparse.size", b"10"), (b"GNU.sparse.map", b"2,1,7,2"))
    + header(b"GNUSparseFile.1/holes", size=3)
    + padded(b"abc"),
    "1.0": pax(
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", b"holes"),
        (b"GNU.sparse.realsize", b"10"),
    )
    + header(b"GNUSparseFile.1/holes", size=515)
    + padded(padded(SPARSE_MAP) + b"abc"),
}


@pytest.mark.parametrize("way", SPARSE)
def test_holes_become_zeros(uploads: Uploads, way: str) -> None:
    archive = SPARSE[way] + header(b"next", size=1) + padded(b"n") + END

    assert uploads.normalised(archive).files == {"holes": b"\0\0a\0\0\0\0bc\0", "next": b"n"}


@pytest.mark.parametrize("options", [["--format=gnu"], ["--format=posix"], ["--format=ustar"], ["--format=v7"]])
@pytest.mark.parametrize("sparse", [False, True])
def test_what_the_tar_program_writes_is_read(
    uploads: Uploads, tmp_path: Path, options: list[str], sparse: bool
) -> None:
    if shutil.which("tar") is None or "GNU" not in subprocess.check_output(["tar", "--version"], text=True):
        unavailable("GNU tar")
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "holes").open("wb") as holes:
        holes.truncate(300_000)
        for offset in range(0, 300_000, 8192):
            holes.seek(offset)
            holes.write(b"data")
    (tree / "file").write_bytes(b"plain")
    os.link(tree / "file", tree / "same")
    (tree / "link").symlink_to("file")
    if sparse and options[0] in ("--format=ustar", "--format=v7"):
        options = ["--format=oldgnu"]
    command = ["tar", *options, *(["--sparse"] if sparse else []), "-C", str(tree), "-cf", "-", "."]

    result = uploads.normalised(subprocess.check_output(command))

    expected = {name: (tree / name).read_bytes() for name in ("file", "holes", "same")}
    assert result.files == expected
    assert result.entries["link"][1] == "file"


def test_git_archives_are_read(uploads: Uploads, tmp_path: Path) -> None:
    if shutil.which("git") is None:
        unavailable("git")
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "init", "-q", tmp_path / "r"], check=True)
    (tmp_path / "r" / "file").write_text("x")
    subprocess.run(["git", "-C", tmp_path / "r", "add", "file"], check=True)
    subprocess.run(["git", "-C", tmp_path / "r", *identity, "commit", "-qm", "m"], check=True)

    for kind in ("tar", "tar.gz", "zip"):
        packed = subprocess.check_output(
            ["git", "-C", tmp_path / "r", "archive", f"--format={kind}", "--prefix=p/", "HEAD"]
        )
        assert uploads.normalised(packed).files == {"p/file": b"x"}


def test_the_sandbox_reads_every_entry_of_a_result(uploads: Uploads, tmp_path: Path) -> None:
    upload, result = tmp_path / "upload", tmp_path / "result"
    names = ["top/z.txt", "n" * 200, "d/" * 60 + "deep", "odd\\name", "new\nline"]
    upload.write_bytes(tar_of(*TREE[3:], *(file(name) for name in names), symlink("d/up", "../top/z.txt")))
    normalise(upload, result, ArchiveLimits())

    read = {entry.path for entry in sandbox_entries(result, Limits())}

    assert {*names, "top/link", "top/empty", "d/up"} <= read


def test_a_result_normalises_to_itself(uploads: Uploads) -> None:
    once = uploads.normalised(tar_of(*TREE)).packed

    assert uploads.normalised(once).packed == once
