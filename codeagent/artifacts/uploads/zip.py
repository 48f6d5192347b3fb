"""Reads zip by its directory, strictly: entries may not overlap, and their bytes are counted, not believed."""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from codeagent.artifacts.uploads.limits import (
    ArchiveLimits,
    Meter,
    refused,
    too_large,
    too_many_entries,
    unreadable,
)
from codeagent.artifacts.uploads.member import Kind, Member
from codeagent.artifacts.uploads.paths import components, decoded
from codeagent.artifacts.uploads.streams import PIECE_BYTES, Inflater, unpacked

_END = struct.Struct("<4s4H2LH")
_END_64_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_LONGEST_COMMENT = 65_535
_ENCRYPTED_FLAGS = 0x0001 | 0x0040 | 0x2000
_UTF8_FLAG = 0x0800
_STORED, _DEFLATED, _AES = 0, 8, 99
_UNIX_SYSTEMS = (3, 19)
_KINDS = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.SYMLINK}


@dataclass(frozen=True, slots=True)
class _Record:
    """One entry of the directory at the end."""

    raw_name: bytes
    name: str
    flags: int
    method: int
    checksum: int
    packed: int
    size: int
    offset: int
    mode: int


def looks_like_zip(head: bytes) -> bool:
    return head.startswith((b"PK\3\4", b"PK\5\6"))


def members(file: IO[bytes], limits: ArchiveLimits, meter: Meter) -> Iterator[Member]:
    """The entries in the order of their bytes. Raises `Rejected`."""
    start, size, count = _directory(file)
    if count > limits.entries:
        raise too_many_entries(limits)
    position = 0
    for record in sorted(_records(file, start, start + size, count, limits), key=lambda record: record.offset):
        meter.entry()
        if record.offset < position:
            raise too_large("entries overlap")
        content = _content_offset(file, record)
        position = content + record.packed
        if position > start:
            raise unreadable("an entry reaches into the directory")
        yield _member(file, record, limits)


def _directory(file: IO[bytes]) -> tuple[int, int, int]:
    """Where the directory begins, its size in bytes and its number of entries."""
    length = file.seek(0, os.SEEK_END)
    tail_start = max(0, length - _LONGEST_COMMENT - _END.size)
    file.seek(tail_start)
    tail = file.read()
    found = tail.rfind(b"PK\5\6")
    while found >= 0:
        if len(tail) - found >= _END.size:
            _, disk, first_disk, _, count, size, start, comment = _END.unpack_from(tail, found)
            if found + _END.size + comment == len(tail):
                break
        found = tail.rfind(b"PK\5\6", 0, found)
    else:
        raise unreadable("it has no directory; perhaps it was cut off")
    end = tail_start + found
    if disk or first_disk:
        raise unreadable("it is a part of several")
    if count == 0xFFFF or 0xFFFFFFFF in (size, start):
        end, start, size, count = _large_directory(file, end)
    if start + size > end:
        raise unreadable("its directory is not where it should be")
    return start, size, count


def _large_directory(file: IO[bytes], end: int) -> tuple[int, int, int, int]:
    """The same from the records of large archives, which precede the plain one."""
    magic, disk, offset, disks = _END_64_LOCATOR.unpack(_at(file, end - _END_64_LOCATOR.size, _END_64_LOCATOR.size))
    if magic != b"PK\6\7" or disk or disks > 1 or offset > end:
        raise unreadable("its directory is damaged")
    magic, _, _, _, disk, first_disk, _, count, size, start = _END_64.unpack(_at(file, offset, _END_64.size))
    if magic != b"PK\6\6" or disk or first_disk:
        raise unreadable("its directory is damaged")
    return offset, start, size, count


def _at(file: IO[bytes], offset: int, count: int) -> bytes:
    if offset < 0:
        raise unreadable("it ends too early")
    file.seek(offset)
    data = file.read(count)
    if len(data) < count:
        raise unreadable("it ends too early")
    return data


def _records(file: IO[bytes], start: int, end: int, count: int, limits: ArchiveLimits) -> Iterator[_Record]:
    position = start
    for _ in range(count):
        fields = _CENTRAL.unpack(_at(file, position, _CENTRAL.size))
        magic, made_by, _, flags, method, _, _, checksum, packed, size = fields[:10]
        name_length, extra_length, comment_length, disk, _, attributes, offset = fields[10:]
        if magic != b"PK\1\2" or disk not in (0, 0xFFFF):
            raise unreadable("its directory is damaged")
        if name_length > limits.path_bytes:
            raise too_large(f"a path has more than {limits.path_bytes} bytes")
        rest = _at(file, position + _CENTRAL.size, name_length + extra_length)
        size, packed, offset = _large_numbers(rest[name_length:], (size, packed, offset))
        if flags & _ENCRYPTED_FLAGS or method == _AES:
            raise refused("archive_encrypted", "the archive is encrypted")
        raw_name = rest[:name_length]
        yield _Record(
            raw_name=raw_name,
            name=_name(raw_name, flags),
            flags=flags,
            method=method,
            checksum=checksum,
            packed=packed,
            size=size,
            offset=offset,
            mode=attributes >> 16 if made_by >> 8 in _UNIX_SYSTEMS else 0,
        )
        position += _CENTRAL.size + name_length + extra_length + comment_length
    if position != end:
        raise unreadable("its directory is damaged")


def _large_numbers(extra: bytes, numbers: tuple[int, int, int]) -> tuple[int, int, int]:
    """Replaces the numbers that did not fit by those of the extra field made for them."""
    if 0xFFFFFFFF not in numbers:
        return numbers
    position = 0
    while position + 4 <= len(extra):
        tag, length = struct.unpack_from("<2H", extra, position)
        if tag == 1:
            field = extra[position + 4 : position + 4 + length]
            values = iter(struct.unpack_from(f"<{min(len(field) // 8, 3)}Q", field))
            size, packed, offset = (next(values, 0) if number == 0xFFFFFFFF else number for number in numbers)
            return size, packed, offset
        position += 4 + length
    raise unreadable("its directory is damaged")


def _name(raw: bytes, flags: int) -> str:
    """A backslash separates here: archives made on Windows use it, whatever the format says."""
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        name = decoded(raw) if flags & _UTF8_FLAG else raw.decode("cp437")
    return name.replace("\\", "/")


def _content_offset(file: IO[bytes], record: _Record) -> int:
    fields = _LOCAL.unpack(_at(file, record.offset, _LOCAL.size))
    name_length, extra_length = fields[-2:]
    if fields[0] != b"PK\3\4" or _at(file, record.offset + _LOCAL.size, name_length) != record.raw_name:
        raise unreadable("its directory and its entries do not match")
    offset: int = record.offset + _LOCAL.size + name_length + extra_length
    file.seek(offset)
    return offset


def _member(file: IO[bytes], record: _Record, limits: ArchiveLimits) -> Member:
    parts = components(record.name, limits)
    kind = _KINDS.get(stat.S_IFMT(record.mode), Kind.SPECIAL) if stat.S_IFMT(record.mode) else Kind.FILE
    if record.name.endswith("/") and kind is Kind.FILE:
        kind = Kind.DIRECTORY
    if kind is Kind.SYMLINK:
        if record.size > limits.path_bytes:
            raise too_large(f"a link's target has more than {limits.path_bytes} bytes")
        return Member(parts, kind, target=decoded(b"".join(_content(file, record))))
    executable = bool(record.mode & 0o111)
    return Member(parts, kind, executable=executable, content=_content(file, record))


def _content(file: IO[bytes], record: _Record) -> Iterator[bytes]:
    """The unpacked bytes of the entry at the file's position, held against what the directory says of them."""
    if record.method == _DEFLATED:
        pieces = unpacked(Inflater(-zlib.MAX_WBITS), _packed(file, record.packed))
    elif record.method == _STORED:
        pieces = _packed(file, record.packed)
    else:
        raise unreadable(f"compression method {record.method} is not supported; use deflate")
    seen, checksum = 0, 0
    for piece in pieces:
        seen += len(piece)
        if seen > record.size:
            raise too_large("an entry unpacks to more than it says")
        checksum = zlib.crc32(piece, checksum)
        yield piece
    if seen != record.size or checksum != record.checksum:
        raise unreadable("an entry's content is damaged")


def _packed(file: IO[bytes], count: int) -> Iterator[bytes]:
    while count:
        piece = file.read(min(count, PIECE_BYTES))
        if not piece:
            raise unreadable("it ends too early")
        count -= len(piece)
        yield piece
