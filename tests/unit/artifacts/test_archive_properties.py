"""Whatever an upload is made of, the outcome is a refusal with a known code or a tree that cannot reach outside."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codeagent.artifacts.archive import ArchiveLimits, normalise
from codeagent.errors import Rejected
from tests.unit.artifacts.samples import END, PACKERS, Uploads, file, header, member, padded, tar_of, zip_entry, zip_of

CODES = {
    "archive_unreadable",
    "archive_path_outside",
    "archive_link_outside",
    "archive_special_file",
    "archive_too_large",
    "archive_duplicate",
    "archive_encrypted",
    "archive_empty",
}
LIMITS = ArchiveLimits(unpacked_bytes=1 << 20, file_bytes=1 << 18, entries=100)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

steps = st.sampled_from(["..", ".", "", "a", "b", "c", "link", ".git", "é", " ", "\\", "..\\", "C:", "a\nb", "~"])
paths = st.lists(steps, min_size=1, max_size=6).map("/".join)
kinds = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]
)
# Mostly plain names: a tree is only interesting if it is not refused for its first entry.
plain = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=4).map("/".join)
targets = st.lists(st.sampled_from(["..", "a", "b", "c", "d", "."]), min_size=1, max_size=5).map("/".join)


def outcome(data: bytes) -> bytes | None:
    """The result, or None when the upload is refused."""
    with tempfile.TemporaryDirectory() as folder:
        upload, destination = Path(folder) / "upload", Path(folder) / "result"
        upload.write_bytes(data)
        try:
            normalise(upload, destination, LIMITS)
        except Rejected as refusal:
            assert refusal.code in CODES
            assert refusal.status == 422
            assert sorted(path.name for path in Path(folder).iterdir()) == ["upload"]
            return None
        return destination.read_bytes()


def assert_harmless(packed: bytes) -> None:
    """Unpacks as naively as can be, and lets the kernel say where everything leads."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        root = Path(folder).resolve() / "tree"
        root.mkdir()
        infos = tar.getmembers()
        names = [info.name for info in infos]
        assert names == sorted(set(names))
        for info in infos:
            assert info.isreg() or info.isdir() or info.issym()
            assert stat.S_IMODE(info.mode) in (0o644, 0o755)
            path = root / info.name
            assert path.parent.resolve() == path.parent, "no entry is behind a link"
            if info.isdir():
                path.mkdir()
            elif info.issym():
                path.symlink_to(info.linkname)
            else:
                content = tar.extractfile(info)
                assert content is not None
                path.write_bytes(content.read())
        for info in infos:
            assert (root / info.name).resolve().is_relative_to(root), info.name
            assert ".git" not in info.name.split("/")


@QUICK
@given(st.lists(st.tuples(paths, kinds, paths), min_size=1, max_size=5))
def test_hostile_tars_never_reach_outside(entries: list[tuple[str, bytes, str]]) -> None:
    made = [
        (member(name, kind, target=target), b"x" if kind == tarfile.REGTYPE else b"") for name, kind, target in entries
    ]

    packed = outcome(tar_of(file("present"), *made))

    if packed is not None:
        assert_harmless(packed)


@settings(QUICK, max_examples=400)
@given(st.lists(st.tuples(plain, st.sampled_from([tarfile.DIRTYPE, tarfile.SYMTYPE]), targets), min_size=1, max_size=8))
def test_links_through_links_never_reach_outside(entries: list[tuple[str, bytes, str]]) -> None:
    packed = outcome(
        tar_of(file("present"), *((member(name, kind, target=target), b"") for name, kind, target in entries))
    )

    if packed is not None:
        assert_harmless(packed)


@QUICK
@given(st.lists(st.tuples(paths, st.sampled_from([stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR, 0]), paths), max_size=5))
def test_hostile_zips_never_reach_outside(entries: list[tuple[str, int, str]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        made = zip_of(("present", b""), *((zip_entry(name, kind), target.encode()) for name, kind, target in entries))

    packed = outcome(made)

    if packed is not None:
        assert_harmless(packed)


@QUICK
@given(
    st.binary(min_size=1, max_size=100),
    st.sampled_from(b"0125L\0").map(lambda kind: bytes([kind])),
    st.binary(max_size=100),
)
def test_names_of_any_bytes_never_reach_outside(name: bytes, kind: bytes, target: bytes) -> None:
    packed = outcome(tar_of(file("present"))[:1024] + header(name, kind, target=target) + END)

    if packed is not None:
        assert_harmless(packed)


@QUICK
@given(st.text(min_size=1, max_size=80).filter(lambda name: name[0] != "\0"))
def test_every_name_is_kept_exactly_or_refused(name: str) -> None:
    raw = name.encode("utf-8", "surrogatepass")
    packed = outcome(header(b"long", b"L", size=len(raw) + 1) + padded(raw + b"\0") + header(b"short") + END)

    if packed is not None:
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            kept = [info.name for info in tar.getmembers() if info.isreg()]
        expected = raw.partition(b"\0")[0].decode()
        assert kept == [os.path.normpath(expected)] or expected.endswith("/")


@settings(QUICK, max_examples=300)
@given(
    st.sampled_from([*PACKERS, "zip"]),
    st.lists(st.tuples(st.integers(min_value=0, max_value=1 << 16), st.binary(min_size=1, max_size=8)), max_size=6),
)
def test_damaged_archives_are_refused_or_read_never_anything_else(kind: str, damage: list[tuple[int, bytes]]) -> None:
    entries = [file("a/b", b"data" * 50), file("c", mode=0o755)]
    data = zip_of(("a/b", b"data" * 50), ("c", b"x")) if kind == "zip" else PACKERS[kind](tar_of(*entries))
    damaged = bytearray(data)
    for position, patch in damage:
        start = position % len(damaged)
        damaged[start : start + len(patch)] = patch

    packed = outcome(bytes(damaged))

    if packed is not None:
        assert_harmless(packed)


@QUICK
@given(st.sampled_from([b"", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"PK\3\4", b"PK\5\6"]), st.binary(max_size=2000))
def test_arbitrary_bytes_are_refused(magic: bytes, data: bytes) -> None:
    assert outcome(magic + data) is None


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@settings(QUICK, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(plain.map(lambda path: path.replace("/", "-")), st.binary(max_size=300_000), min_size=1, max_size=4)
)
def test_contents_survive_every_format(uploads: Uploads, method: int, tree: dict[str, bytes]) -> None:
    tar = tar_of(*(file(name, data) for name, data in tree.items()))

    for packed in (*(pack(tar) for pack in PACKERS.values()), zip_of(*tree.items(), method=method)):
        assert uploads.normalised(packed).files == tree
