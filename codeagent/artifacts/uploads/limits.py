"""How much an archive may hold, counted while it is read: what an archive says about itself is never believed."""

from __future__ import annotations

from dataclasses import dataclass

from codeagent.errors import Rejected

_HEADERS_PER_ENTRY = 4
_EXTENSION_BYTES_PER_ENTRY = 2048
_STREAM_BYTES_PER_ENTRY = 4096
_EXTENSION_FLOOR_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Bounds of one upload. `ratio` is unpacked to packed bytes; below `ratio_floor_bytes` it does not matter."""

    unpacked_bytes: int = 512 << 20
    file_bytes: int = 64 << 20
    entries: int = 50_000
    ratio: int = 200
    ratio_floor_bytes: int = 1 << 20
    path_bytes: int = 1024
    depth: int = 64


def refused(code: str, detail: str) -> Rejected:
    return Rejected(detail, code=code, status=422)


def unreadable(detail: str) -> Rejected:
    return refused("archive_unreadable", f"the archive cannot be read: {detail}")


def too_large(detail: str) -> Rejected:
    return refused("archive_too_large", f"the archive is too large: {detail}")


class Meter:
    """Counts one archive. Every method raises `Rejected` (`archive_too_large`) when a limit is passed."""

    def __init__(self, limits: ArchiveLimits, packed_bytes: int) -> None:
        self._limits = limits
        self._ratio_bytes = max(limits.ratio_floor_bytes, limits.ratio * packed_bytes)
        # Generous room for what is no content: headers, padding, and what the result leaves out.
        self._stream_bytes = limits.unpacked_bytes + _STREAM_BYTES_PER_ENTRY * limits.entries + limits.ratio_floor_bytes
        self._extension_bytes = _EXTENSION_FLOOR_BYTES + _EXTENSION_BYTES_PER_ENTRY * limits.entries
        self._decompressed = self._content = self._entries = self._headers = self._extensions = 0

    def decompressed(self, count: int) -> None:
        """Bytes that came out of a compressed stream, whatever they are."""
        self._decompressed += count
        self._check(self._decompressed, self._stream_bytes)

    def content(self, count: int, of_file: int) -> None:
        """Bytes of content, and how many its file has by now."""
        if of_file > self._limits.file_bytes:
            raise too_large(f"a file has more than {self._limits.file_bytes} bytes")
        self._content += count
        self._check(self._content, self._limits.unpacked_bytes)

    def _check(self, count: int, allowed: int) -> None:
        if count > allowed:
            raise too_large(f"more than {self._limits.unpacked_bytes} bytes unpacked")
        if count > self._ratio_bytes:
            raise too_large(f"it unpacks to more than {self._limits.ratio} times its size")

    def entry(self) -> None:
        self._entries += 1
        if self._entries > self._limits.entries:
            raise too_many_entries(self._limits)

    def header(self, count: int = 1) -> None:
        """Records that cost time to read, whether or not an entry comes of them."""
        self._headers += count
        if self._headers > _HEADERS_PER_ENTRY * self._limits.entries + _HEADERS_PER_ENTRY:
            raise too_many_entries(self._limits)

    def extension(self, count: int) -> None:
        """Bytes of extended headers, which are read into memory and taken apart."""
        self._extensions += count
        if self._extensions > self._extension_bytes:
            raise too_large("too many bytes in extended headers")


def too_many_entries(limits: ArchiveLimits) -> Rejected:
    return too_large(f"more than {limits.entries} entries")
