"""Reads tar strictly and front to back: v7, ustar, GNU and pax headers, nothing believed that cannot be checked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from codeagent.artifacts.uploads import sparse
from codeagent.artifacts.uploads.limits import ArchiveLimits, Meter, unreadable
from codeagent.artifacts.uploads.member import Kind, Member
from codeagent.artifacts.uploads.paths import components, decoded
from codeagent.artifacts.uploads.streams import PIECE_BYTES, ByteStream

BLOCK = 512
_LONGEST_EXTENSION = 1 << 20
_MOST_RECORDS = 1000
_OCTAL = re.compile(rb"[0-7]+")
_RECORD_LENGTH = re.compile(rb"(\d{1,7}) ")
_FILES = (b"0", b"\0", b"7", b"S")
_KINDS = {b"1": Kind.HARD_LINK, b"2": Kind.SYMLINK, b"5": Kind.DIRECTORY}
_WITHOUT_CONTENT = (b"1", b"2", b"3", b"4", b"5", b"6")


@dataclass(frozen=True, slots=True)
class _Header:
    name: bytes
    mode: int
    size: int
    kind: bytes
    target: bytes
    sparse: sparse.SparseMap | None = None
    sparse_map_in_content: int | None = None
    """The real size of a file whose map precedes its content."""


@dataclass(slots=True)
class _Extensions:
    """What extended headers say about the entry that follows them."""

    values: dict[bytes, bytes] = field(default_factory=dict)
    sparse_numbers: list[int] = field(default_factory=list)


def looks_like_tar(head: bytes) -> bool:
    """Whether a file with these first 512 bytes is a plain tar; zeros are one without entries."""
    return len(head) == BLOCK and (not any(head) or _sum_matches(head))


def members(stream: ByteStream, limits: ArchiveLimits, meter: Meter) -> Iterator[Member]:
    """The entries in order; what is left of one's content is skipped. Raises `Rejected`."""
    while (header := _next_header(stream, meter)) is not None:
        meter.entry()
        body = _Body(stream, header.size)
        yield _member(header, body, limits, meter)
        body.finish()
    stream.drain()


class _Body:
    """The stored bytes of one entry and the padding after them."""

    def __init__(self, stream: ByteStream, size: int) -> None:
        self._stream = stream
        self._padding = -size % BLOCK
        self.left = size

    def exactly(self, count: int) -> bytes:
        if count > self.left:
            raise unreadable("an entry ends too early")
        self.left -= count
        return self._stream.exactly(count)

    def pieces(self, count: int) -> Iterator[bytes]:
        while count:
            piece = self.exactly(min(count, PIECE_BYTES))
            count -= len(piece)
            yield piece

    def finish(self) -> None:
        self._stream.skip(self.left + self._padding)


def _member(header: _Header, body: _Body, limits: ArchiveLimits, meter: Meter) -> Member:
    name = decoded(header.name)
    parts = components(name, limits)
    if header.kind not in _FILES:
        return Member(parts, _KINDS.get(header.kind, Kind.SPECIAL), target=decoded(header.target))
    if name.endswith("/"):
        return Member(parts, Kind.DIRECTORY)
    content = body.pieces(body.left)
    if header.sparse_map_in_content is not None:
        segments = sparse.map_in_content(body, meter)
        content = sparse.expanded(sparse.SparseMap(segments, header.sparse_map_in_content).checked(body.left), body)
    elif header.sparse is not None:
        content = sparse.expanded(header.sparse.checked(body.left), body)
    return Member(parts, Kind.FILE, executable=bool(header.mode & 0o111), content=content)


def _next_header(stream: ByteStream, meter: Meter) -> _Header | None:
    """The next entry's header, complete; None at the end marker, without which an archive was cut off."""
    extensions = _Extensions()
    while True:
        meter.header()
        block = stream.exactly(BLOCK)
        if not any(block):
            return None
        header = _parsed(block)
        if header.kind in (b"x", b"X"):
            _read_records(_extension(stream, header, meter), extensions)
        elif header.kind == b"L":
            extensions.values[b"path"] = _text(_extension(stream, header, meter))
        elif header.kind == b"K":
            extensions.values[b"linkpath"] = _text(_extension(stream, header, meter))
        elif header.kind in (b"g", b"V"):
            _extension(stream, header, meter)  # comments and labels: nothing an entry needs
        else:
            if header.kind == b"S":
                header = replace(header, sparse=_old_sparse_map(block, stream, meter))
            return _extended(header, extensions, meter)


def _parsed(block: bytes) -> _Header:
    if not _sum_matches(block):
        raise unreadable("a header is damaged")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = prefix + b"/" + name
    kind = block[156:157]
    size = 0 if kind in _WITHOUT_CONTENT else _number(block[124:136])
    return _Header(name, _number(block[100:108]), size, kind, _text(block[157:257]))


def _sum_matches(block: bytes) -> bool:
    stored = block[148:156].strip(b" \0")
    if not _OCTAL.fullmatch(stored):
        return False
    blanked, expected = block[:148] + b" " * 8 + block[156:], int(stored, 8)
    # Some old programs summed signed bytes.
    return expected == sum(blanked) or expected == sum(byte - 256 * (byte > 127) for byte in blanked)


def _text(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _number(raw: bytes) -> int:
    """Octal digits, or a big-endian number marked by its first bit."""
    if raw[0] == 0x80:
        return int.from_bytes(raw[1:], "big")
    digits = _text(raw).strip(b" ")
    if digits and not _OCTAL.fullmatch(digits):
        raise unreadable("a number is not valid")
    return int(digits or b"0", 8)


def _extension(stream: ByteStream, header: _Header, meter: Meter) -> bytes:
    if header.size > _LONGEST_EXTENSION:
        raise unreadable("an extended header is too long")
    meter.extension(header.size)
    data = stream.exactly(header.size)
    stream.skip(-header.size % BLOCK)
    return data


def _read_records(data: bytes, extensions: _Extensions) -> None:
    """Takes pax records apart: each is its own length in decimal, a blank, key=value and a line feed."""
    position, count = 0, 0
    while position < len(data) and data[position]:
        count += 1
        found = _RECORD_LENGTH.match(data, position)
        end = position + int(found[1]) if found else 0
        if found is None or end <= found.end() or data[end - 1 : end] != b"\n" or count > _MOST_RECORDS:
            raise unreadable("an extended header is not valid")
        key, _, value = data[found.end() : end - 1].partition(b"=")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            extensions.sparse_numbers.append(sparse.decimal(value))
        else:
            extensions.values[key] = value
        position = end


def _extended(header: _Header, extensions: _Extensions, meter: Meter) -> _Header:
    values = extensions.values
    header = replace(
        header,
        name=values.get(b"GNU.sparse.name") or values.get(b"path") or header.name,
        target=values.get(b"linkpath") or header.target,
    )
    if values.get(b"size") and header.kind not in _WITHOUT_CONTENT:
        header = replace(header, size=sparse.decimal(values[b"size"]))
    if values.get(b"GNU.sparse.major") == b"1":
        return replace(header, sparse_map_in_content=sparse.decimal(values.get(b"GNU.sparse.realsize", b"")))
    if b"GNU.sparse.size" in values:
        written = values.get(b"GNU.sparse.map")
        numbers = [sparse.decimal(number) for number in written.split(b",")] if written else extensions.sparse_numbers
        real_size = sparse.decimal(values[b"GNU.sparse.size"])
        return replace(header, sparse=sparse.SparseMap(sparse.paired(numbers, meter), real_size))
    return header


def _old_sparse_map(block: bytes, stream: ByteStream, meter: Meter) -> sparse.SparseMap:
    """GNU tar's first way: four pairs in the header, 21 more in each block that follows."""
    numbers: list[int] = []
    table, continued = block[386:482], block[482]
    while True:
        for start in range(0, len(table), 24):
            if table[start]:
                numbers += [_number(table[start : start + 12]), _number(table[start + 12 : start + 24])]
        if not continued:
            return sparse.SparseMap(sparse.paired(numbers, meter), _number(block[483:495]))
        meter.header()
        following = stream.exactly(BLOCK)
        table, continued = following[:504], following[504]
