"""Decompression in bounded pieces: how much memory and output a stream takes is ours to say, not the stream's."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from typing import IO, Protocol

from codeagent.artifacts.uploads.limits import Meter, unreadable

PIECE_BYTES = 128 << 10
_LZMA_MEMORY_BYTES = 128 << 20
_MOST_MEMBERS = 65_536
"""Compressed streams in a row; parallel compressors write thousands, an attack millions of empty ones."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class Inflater:
    """zlib with the interface of its siblings. `wbits` as zlib defines it: 31 is gzip, -15 a bare deflate stream."""

    def __init__(self, wbits: int) -> None:
        self._stream = zlib.decompressobj(wbits)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._stream.eof and not self._stream.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)


_FORMATS: tuple[tuple[bytes, Callable[[], _Decompressor]], ...] = (
    (b"\x1f\x8b", lambda: Inflater(31)),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY_BYTES)),
)


def compression_of(head: bytes) -> Callable[[], _Decompressor] | None:
    """How a file with these first bytes is compressed, if it is."""
    return next((factory for magic, factory in _FORMATS if head.startswith(magic)), None)


def unpacked(decompressor: _Decompressor, packed: Iterator[bytes]) -> Iterator[bytes]:
    """The output of one compressed stream, at most `PIECE_BYTES` at a time. Raises `Rejected`."""
    while not decompressor.eof:
        data = next(packed, None) if decompressor.needs_input else b""
        piece = _step(decompressor, data or b"")
        if piece:
            yield piece
        elif data is None and not decompressor.eof:
            raise unreadable("its compressed data ends too early")


def _step(decompressor: _Decompressor, data: bytes) -> bytes:
    try:
        return decompressor.decompress(data, PIECE_BYTES)
    except (zlib.error, lzma.LZMAError, OSError, ValueError):  # bz2 reports damage as OSError
        raise unreadable("its compressed data is damaged or needs too much memory") from None


class ByteStream:
    """The decompressed bytes of a file, front to back, each counted."""

    def __init__(self, file: IO[bytes], compression: Callable[[], _Decompressor] | None, meter: Meter) -> None:
        self._pieces = _plain(file) if compression is None else _decompressed(file, compression)
        self._meter = meter
        self._piece = memoryview(b"")

    def read(self, count: int) -> memoryview:
        """Between 1 and `count` bytes; none at the end."""
        if not self._piece:
            self._piece = memoryview(next(self._pieces, b""))
            self._meter.decompressed(len(self._piece))
        taken, self._piece = self._piece[:count], self._piece[count:]
        return taken

    def exactly(self, count: int) -> bytes:
        taken = bytearray()
        while len(taken) < count:
            piece = self.read(count - len(taken))
            if not piece:
                raise unreadable("it ends too early")
            taken += piece
        return bytes(taken)

    def skip(self, count: int) -> None:
        while count:
            piece = self.read(count)
            if not piece:
                raise unreadable("it ends too early")
            count -= len(piece)

    def drain(self) -> None:
        """Reads to the end, where compressed streams keep the sum of what they held."""
        while self.read(PIECE_BYTES):
            pass


def _plain(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        yield piece


def _decompressed(file: IO[bytes], compression: Callable[[], _Decompressor]) -> Iterator[bytes]:
    packed = b""
    for _ in range(_MOST_MEMBERS):
        decompressor = compression()
        yield from unpacked(decompressor, chain((packed,), _plain(file)))
        packed = _next_member(decompressor.unused_data, file)
        if not packed:
            return
    raise unreadable("it is made of too many compressed streams")


def _next_member(packed: bytes, file: IO[bytes]) -> bytes:
    """What follows a compressed stream; zeros are padding."""
    while not packed.lstrip(b"\0"):
        packed = file.read(PIECE_BYTES)
        if not packed:
            return b""
    return packed.lstrip(b"\0")
