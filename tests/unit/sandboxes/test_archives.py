"""Archives from outside: what is unpacked, and what is refused before it can do harm."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from codeagent.sandboxes import archives
from codeagent.sandboxes.protocol import Limits, SandboxFailure

LIMITS = Limits(workspace_bytes=1 << 20, workspace_inodes=100)


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    for field, value in fields.items():
        setattr(header, field, value)
    return header, data


def make(path: Path, *members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w:gz", format=form) as tar:
        for header, data in members:
            tar.addfile(header, io.BytesIO(data))
    return path


def unpack(archive: Path, root: Path, limits: Limits = LIMITS) -> None:
    root.mkdir(exist_ok=True)
    archives.Unpacker(root, os.getuid()).unpack(archive, limits, threading.Event())


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(SandboxFailure) as caught:
        action()
    assert caught.value.retryable is False
    return caught.value.reason


def test_a_plain_tree_is_unpacked_with_its_executable_bits_and_links(tmp_path: Path) -> None:
    archive = make(
        tmp_path / "a.tar.gz",
        member("./dir", type=tarfile.DIRTYPE),
        member("dir/run", b"#!/bin/sh\n", mode=0o4775),
        member("deep/er/file", b"x" * 5000, mode=0o400),
        member("link", type=tarfile.SYMTYPE, linkname="dir/run"),
        member("dir/up", type=tarfile.SYMTYPE, linkname="../deep"),
    )
    unpack(archive, tmp_path / "root")
    root = tmp_path / "root"
    assert (root / "dir/run").stat().st_mode & 0o7777 == 0o755
    assert (root / "deep/er/file").stat().st_mode & 0o7777 == 0o644
    assert (root / "deep/er/file").read_bytes() == b"x" * 5000
    assert (root / "link").readlink() == Path("dir/run")
    assert (root / "dir/up").readlink() == Path("../deep")


def test_long_names_and_names_of_any_bytes_survive(tmp_path: Path) -> None:
    names = ["d" * 120 + "/" + "f" * 200, "téléphone", os.fsdecode(b"bad\xff")]
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        archive = make(tmp_path / f"{form}.tar.gz", *(member(name, b"x") for name in names), form=form)
        unpack(archive, tmp_path / f"root{form}")
        for name in names:
            assert (tmp_path / f"root{form}" / name).read_bytes() == b"x"


def test_a_repository_in_the_archive_is_left_out(tmp_path: Path) -> None:
    archive = make(
        tmp_path / "a", member(".git/config", b"x"), member("sub/.GIT/hooks/x", b"x"), member("sub/ok", b"x")
    )
    unpack(archive, tmp_path / "root")
    assert sorted(str(path.relative_to(tmp_path / "root")) for path in (tmp_path / "root").rglob("*")) == [
        "sub",
        "sub/ok",
    ]


@pytest.mark.parametrize(
    "hostile",
    [
        member("/etc/passwd", b"x"),
        member("../escape", b"x"),
        member("a/../../escape", b"x"),
        member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("link", type=tarfile.SYMTYPE, linkname="../outside"),
        member("a/link", type=tarfile.SYMTYPE, linkname="../../outside"),
        member("link", type=tarfile.SYMTYPE, linkname=""),
        member("hard", type=tarfile.LNKTYPE, linkname="a"),
        member("device", type=tarfile.CHRTYPE),
        member("disk", type=tarfile.BLKTYPE),
        member("pipe", type=tarfile.FIFOTYPE),
        member("x" * 300, b"x"),
    ],
    ids=lambda hostile: f"{hostile[0].type!r}:{hostile[0].name[:20]}->{hostile[0].linkname}",
)
def test_hostile_members_are_refused(tmp_path: Path, hostile: tuple[tarfile.TarInfo, bytes]) -> None:
    archive = make(tmp_path / "a.tar.gz", member("a", b"x"), hostile)
    assert refusal(lambda: unpack(archive, tmp_path / "root")) == "archive_refused"
    assert not (tmp_path / "escape").exists()


def test_a_file_is_never_written_through_a_link_of_the_archive(tmp_path: Path) -> None:
    archive = make(
        tmp_path / "a",
        member("d", type=tarfile.DIRTYPE),
        member("l", type=tarfile.SYMTYPE, linkname="d"),
        member("l/f", b"x"),
    )
    assert refusal(lambda: unpack(archive, tmp_path / "root")) == "not_a_file"
    assert list((tmp_path / "root" / "d").iterdir()) == []


def test_of_two_members_of_a_name_the_last_wins(tmp_path: Path) -> None:
    archive = make(tmp_path / "a", member("f", b"one"), member("f", b"two"))
    unpack(archive, tmp_path / "root")
    assert (tmp_path / "root" / "f").read_bytes() == b"two"
    archive = make(tmp_path / "b", member("d/f", b"one"), member("d", b"two"))
    assert refusal(lambda: unpack(archive, tmp_path / "other")) == "archive_refused"


def test_more_bytes_or_members_than_allowed_are_refused(tmp_path: Path) -> None:
    large = make(tmp_path / "large", member("a", b"x" * (600 << 10)), member("b", b"x" * (600 << 10)))
    assert refusal(lambda: unpack(large, tmp_path / "one")) == "archive_refused"
    many = make(tmp_path / "many", *(member(f"f{i}") for i in range(101)))
    assert refusal(lambda: unpack(many, tmp_path / "two")) == "archive_refused"


def test_a_small_file_that_unpacks_to_a_huge_one_is_refused_early(tmp_path: Path) -> None:
    header = tarfile.TarInfo("bomb")
    header.size = 1 << 40
    (tmp_path / "bomb").write_bytes(gzip.compress(header.tobuf() + b"\0" * 10_000))
    assert refusal(lambda: unpack(tmp_path / "bomb", tmp_path / "root")) == "archive_refused"


def test_an_extension_header_cannot_exhaust_memory(tmp_path: Path) -> None:
    wordy = make(tmp_path / "wordy", member("f", b"x", pax_headers={"comment": "x" * 100_000}))
    assert refusal(lambda: unpack(wordy, tmp_path / "root")) == "archive_refused"
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE):
        header = tarfile.TarInfo("extension")
        header.type, header.size = kind, 1 << 30
        (tmp_path / "bomb").write_bytes(gzip.compress(header.tobuf() + b"\0" * 10_000))
        assert refusal(lambda: unpack(tmp_path / "bomb", tmp_path / "root")) == "archive_refused"


@pytest.mark.parametrize(
    "data",
    [b"", b"not gzip", gzip.compress(b"not tar" * 200), gzip.compress(b"x")[:-6]],
    ids=["empty", "not gzip", "not tar", "cut"],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    assert refusal(lambda: unpack(tmp_path / "a", tmp_path / "root")) == "archive_refused"


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    whole = make(tmp_path / "a", member("f", os.urandom(200_000))).read_bytes()
    (tmp_path / "half").write_bytes(whole[: len(whole) // 2])
    assert refusal(lambda: unpack(tmp_path / "half", tmp_path / "root")) == "archive_refused"


def test_unpacking_stops_when_it_is_canceled(tmp_path: Path) -> None:
    archive = make(tmp_path / "a", member("f", b"x"))
    canceled = threading.Event()
    canceled.set()
    (tmp_path / "root").mkdir()
    with pytest.raises(SandboxFailure, match="canceled"):
        archives.Unpacker(tmp_path / "root", os.getuid()).unpack(archive, LIMITS, canceled)
    assert list((tmp_path / "root").iterdir()) == []


def test_what_is_packed_unpacks_to_the_same_and_packs_to_the_same(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d" / "e").mkdir(parents=True)
    (source / ".git").mkdir()
    (source / ".git" / "config").write_text("x")
    (source / "d" / "run").write_text("x")
    (source / "d" / "run").chmod(0o750)
    (source / "in").symlink_to("d/run")
    (source / "out").symlink_to("/etc/passwd")
    os.mkfifo(source / "pipe")
    for name in ("one", "two"):
        archives.pack(source, tmp_path / name, LIMITS)
        os.utime(source / "d" / "run", (1, 1))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    unpack(tmp_path / "one", tmp_path / "root")
    found = sorted(str(path.relative_to(tmp_path / "root")) for path in (tmp_path / "root").rglob("*"))
    assert found == ["d", "d/e", "d/run", "in"]
    assert (tmp_path / "root/d/run").stat().st_mode & 0o777 == 0o755


def test_a_directory_larger_than_a_workspace_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "big").write_bytes(b"x" * 2000)
    limits = replace(LIMITS, workspace_bytes=1000)
    assert refusal(lambda: archives.pack(tmp_path / "source", tmp_path / "a", limits)) == "too_large"
