"""Writes .tar.gz files in which nothing but names, contents and the executable bit can differ."""

from __future__ import annotations

import gzip
import tarfile
from types import TracebackType
from typing import IO, Self

_COMPRESSION_LEVEL = 3
_PLAIN_MODE, _EXECUTABLE_MODE = 0o644, 0o755


class PlainTar:
    """Writes to `raw` and leaves it open. The same calls give the same bytes: no times, owners or other modes."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._packed = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=_COMPRESSION_LEVEL)
        self._tar = tarfile.TarFile(fileobj=self._packed, mode="w", format=tarfile.PAX_FORMAT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self._tar.close()
        finally:
            self._packed.close()

    def directory(self, path: str) -> None:
        self._tar.addfile(_header(path, tarfile.DIRTYPE, _EXECUTABLE_MODE))

    def link(self, path: str, target: str) -> None:
        header = _header(path, tarfile.SYMTYPE, _EXECUTABLE_MODE)
        header.linkname = target
        self._tar.addfile(header)

    def file(self, path: str, size: int, content: IO[bytes], *, executable: bool) -> None:
        """Takes `size` bytes from where `content` stands. Raises `OSError` if there are fewer."""
        header = _header(path, tarfile.REGTYPE, _EXECUTABLE_MODE if executable else _PLAIN_MODE)
        header.size = size
        self._tar.addfile(header, content)


def _header(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(path)
    header.type, header.mode = kind, mode
    return header
