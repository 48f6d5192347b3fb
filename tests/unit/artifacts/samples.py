"""Archives to upload: friendly ones by the standard library, hostile ones byte by byte."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from codeagent.artifacts.archive import ArchiveLimits, ArchiveSummary, normalise
from codeagent.errors import Rejected

BLOCK = 512
END = bytes(2 * BLOCK)


def member(name: str, kind: bytes = tarfile.REGTYPE, *, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, mode
    return info


def file(name: str, data: bytes = b"x", *, mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, mode=mode), data


def directory(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.DIRTYPE), b""


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.SYMTYPE, target=target), b""


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.LNKTYPE, target=target), b""


def tar_of(*entries: tuple[tarfile.TarInfo, bytes], layout: int = tarfile.PAX_FORMAT) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=layout) as tar:
        for info, data in entries:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return raw.getvalue()


def header(
    name: bytes, kind: bytes = b"0", *, size: int | bytes = 0, target: bytes = b"", magic: bytes = b"ustar\x0000"
) -> bytes:
    """One tar header as written, nothing refused, its checksum right."""
    number = size if isinstance(size, bytes) else b"%011o\0" % size
    fields = [name.ljust(100, b"\0"), b"0000644\0", b"0000000\0" * 2, number, b"00000000000\0", b" " * 8, kind]
    block = b"".join([*fields, target.ljust(100, b"\0"), magic]).ljust(BLOCK, b"\0")
    return checked(block)


def checked(block: bytes) -> bytes:
    blanked = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(blanked) + block[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def pax(*records: tuple[bytes, bytes]) -> bytes:
    """An extended header with these records."""
    body = b""
    for key, value in records:
        rest = b" " + key + b"=" + value + b"\n"
        length = len(rest) + 1
        while len(str(length)) + len(rest) > length:
            length += 1
        body += str(length).encode() + rest
    return header(b"pax", b"x", size=len(body)) + padded(body)


def zip_of(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", method) as archive:
        for name, data in entries:
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            info.compress_type = method
            archive.writestr(info, data)
    return raw.getvalue()


def zip_entry(name: str, mode: int) -> zipfile.ZipInfo:
    """An entry made on Unix."""
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
}


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


@dataclass(frozen=True)
class Result:
    """What came out: every path with its kind, its content or target, and its mode."""

    summary: ArchiveSummary
    packed: bytes
    entries: dict[str, tuple[str, bytes | str, int]]
    infos: list[tarfile.TarInfo]

    @property
    def files(self) -> dict[str, bytes | str]:
        return {path: content for path, (kind, content, _) in self.entries.items() if kind == "file"}


class Uploads:
    """Normalises uploads in a folder of their own, and sees that only results stay there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def normalised(self, data: bytes, limits: ArchiveLimits | None = None) -> Result:
        upload, destination = self._folder / "upload", self._folder / "result.tar.gz"
        upload.write_bytes(data)
        summary = normalise(upload, destination, limits or ArchiveLimits())
        packed = destination.read_bytes()
        destination.unlink()
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
            infos = tar.getmembers()
            return Result(summary, packed, {info.name: _content(tar, info) for info in infos}, infos)

    def refused(self, data: bytes, limits: ArchiveLimits | None = None) -> str:
        """The code of the refusal."""
        upload, destination = self._folder / "upload", self._folder / "result.tar.gz"
        upload.write_bytes(data)
        with pytest.raises(Rejected) as refusal:
            normalise(upload, destination, limits or ArchiveLimits())
        assert refusal.value.status == 422
        assert refusal.value.detail.isascii()
        assert [path.name for path in self._folder.iterdir()] == ["upload"], "a refusal leaves nothing behind"
        return refusal.value.code


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> tuple[str, bytes | str, int]:
    if info.isdir():
        return "directory", b"", info.mode
    if info.issym():
        return "link", info.linkname, info.mode
    content = tar.extractfile(info)
    assert content is not None
    assert info.isreg()
    return "file", content.read(), info.mode


LINK_MODE = stat.S_IFLNK | 0o777
