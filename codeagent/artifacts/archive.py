"""Turns an uploaded archive of any common kind, by anyone, into the one plain form the rest of the system reads."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from codeagent.artifacts.disk import explained
from codeagent.artifacts.plain_tar import PlainTar
from codeagent.artifacts.uploads import tar, zip
from codeagent.artifacts.uploads.limits import ArchiveLimits, Meter, refused, unreadable
from codeagent.artifacts.uploads.member import Kind, Member
from codeagent.artifacts.uploads.paths import components, in_git_directory, shown
from codeagent.artifacts.uploads.streams import ByteStream, compression_of
from codeagent.artifacts.uploads.tree import Node, Tree
from codeagent.errors import Rejected

__all__ = ["ArchiveLimits", "ArchiveSummary", "normalise"]


@dataclass(frozen=True, slots=True)
class ArchiveSummary:
    """What the result holds, and how many entries of the upload were left out because they belong to `.git`."""

    files: int
    links: int
    directories: int
    unpacked_bytes: int
    packed_bytes: int
    dropped: int


def normalise(upload: Path, destination: Path, limits: ArchiveLimits) -> ArchiveSummary:
    """Writes the tree in `upload` (.tar, plain or compressed by gzip, bzip2 or xz; .zip) to `destination` as a plain
    .tar.gz. Blocking: minutes at most, for a call in a thread.

    The result is sorted, has every directory, and only files (0644 or 0755), directories and links that stay inside;
    the same tree gives the same bytes. Hard links become copies, holes zeros; anything below `.git` is left out, but
    counts while it is read. Nothing is ever written under a name from the archive: contents wait in a file without
    a name beside `destination`. No `destination` remains after an error.

    Raises `Rejected` (422): `archive_unreadable`, `archive_path_outside`, `archive_link_outside`,
    `archive_special_file`, `archive_too_large`, `archive_duplicate`, `archive_encrypted`, `archive_empty`;
    and `Unavailable` (`storage_full`, `storage_unavailable`).
    """
    with (
        upload.open("rb") as source,
        explained(),
        tempfile.TemporaryFile(dir=destination.parent) as spool,
    ):
        meter = Meter(limits, packed_bytes=upload.stat().st_size)
        intake = _Intake(spool, limits, meter)
        for member in _members(source, limits, meter):
            intake.take(member)
        intake.tree.check_links()
        entries = sorted(intake.tree.entries(), key=lambda entry: entry[0])
        if all(node.children is not None for _, node in entries):
            raise refused("archive_empty", "the archive contains no files")
        try:
            with destination.open("wb") as raw:
                _write(entries, spool, raw)
                packed_bytes = raw.tell()
        except BaseException:
            destination.unlink(missing_ok=True)
            raise
    return _summary([node for _, node in entries], packed_bytes, intake.dropped)


def _members(source: IO[bytes], limits: ArchiveLimits, meter: Meter) -> Iterator[Member]:
    """Chooses the format by content: names and media types of uploads are anyone's guess."""
    head = source.read(tar.BLOCK)
    source.seek(0)
    if zip.looks_like_zip(head):
        return zip.members(source, limits, meter)
    compression = compression_of(head)
    if compression is None and not tar.looks_like_tar(head):
        raise unreadable("it is neither a tar (plain, .gz, .bz2 or .xz) nor a zip")
    return tar.members(ByteStream(source, compression, meter), limits, meter)


class _Intake:
    """Takes member after member: contents into the spool, everything else into the tree."""

    def __init__(self, spool: IO[bytes], limits: ArchiveLimits, meter: Meter) -> None:
        self.tree = Tree(limits)
        self.dropped = 0
        self._spool = spool
        self._end = 0
        self._limits = limits
        self._meter = meter

    def take(self, member: Member) -> None:
        if in_git_directory(member.parts):
            self.dropped += 1
        elif member.kind is Kind.DIRECTORY:
            self.tree.add_directory(member.parts)
        elif member.kind is Kind.FILE:
            self.tree.add(member.parts, self._stored(member))
        elif member.kind is Kind.SYMLINK:
            self.tree.add(member.parts, Node("", None, target=member.target))
        elif member.kind is Kind.HARD_LINK:
            self.tree.add(member.parts, self._copied(member))
        else:
            name = shown("/".join(member.parts))
            raise refused("archive_special_file", f"not a file, a directory or a link: {name}")

    def _stored(self, member: Member) -> Node:
        node = Node("", None, executable=member.executable, offset=self._end)
        for piece in member.content:
            node.size += len(piece)
            self._meter.content(len(piece), of_file=node.size)
            self._spool.write(piece)
        self._end += node.size
        return node

    def _copied(self, member: Member) -> Node:
        """Another name for a file that came before. It is paid for in full: the result holds it twice."""
        try:
            original = self.tree.leaf(components(member.target, self._limits))
        except Rejected:
            original = None
        if original is None:
            name = shown("/".join(member.parts))
            raise refused("archive_link_outside", f"a hard link leads to no file of the archive: {name}")
        self._meter.content(original.size, of_file=original.size)
        return Node(
            "",
            None,
            target=original.target,
            executable=original.executable,
            offset=original.offset,
            size=original.size,
        )


def _write(entries: list[tuple[str, Node]], spool: IO[bytes], raw: IO[bytes]) -> None:
    with PlainTar(raw) as result:
        for path, node in entries:
            if node.children is not None:
                result.directory(path)
            elif node.target is not None:
                result.link(path, node.target)
            else:
                spool.seek(node.offset)
                result.file(path, node.size, spool, executable=node.executable)


def _summary(nodes: list[Node], packed_bytes: int, dropped: int) -> ArchiveSummary:
    directories = sum(node.children is not None for node in nodes)
    links = sum(node.target is not None for node in nodes)
    return ArchiveSummary(
        files=len(nodes) - directories - links,
        links=links,
        directories=directories,
        unpacked_bytes=sum(node.size for node in nodes),
        packed_bytes=packed_bytes,
        dropped=dropped,
    )
