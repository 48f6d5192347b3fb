"""The three mount calls the drivers need, made directly so that no mount program has to be installed or started."""

from __future__ import annotations

import ctypes
import errno
import os
from functools import lru_cache
from pathlib import Path

_MS_RDONLY = 1
_MS_NOSUID = 2
_MS_NODEV = 4
_MS_REMOUNT = 32
_MNT_DETACH = 2


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
    libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
    return libc


def _mount(target: Path, flags: int, options: str) -> None:
    if _libc().mount(b"codeagent", os.fsencode(target), b"tmpfs", flags, options.encode()) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(target))


def mount_tmpfs(target: Path, *, size_bytes: int, inodes: int, owner: int, read_only: bool = False) -> None:
    """Mounts a private (0700) memory file system bounded in bytes and inodes. Raises `OSError`."""
    options = f"size={size_bytes},nr_inodes={inodes},mode=0700,uid={owner},gid={owner}"
    _mount(target, _MS_NOSUID | _MS_NODEV | (_MS_RDONLY if read_only else 0), options)


def make_read_only(target: Path) -> None:
    """Makes the whole file system mounted at `target` read-only, for every view of it. Raises `OSError`."""
    _mount(target, _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID | _MS_NODEV, "")


def unmount(target: Path) -> None:
    """Detaches what is mounted at `target`; nothing mounted there is not an error."""
    for flags in (0, _MNT_DETACH):
        if _libc().umount2(os.fsencode(target), flags) == 0:
            return
        code = ctypes.get_errno()
        if code in (errno.EINVAL, errno.ENOENT):
            return
        if code != errno.EBUSY:
            raise OSError(code, os.strerror(code), str(target))


def mounted_below(root: Path) -> list[Path]:
    """Mount points at or below `root`, deepest first."""
    prefix = str(root.resolve())
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        point = _unescape(line.split(" ")[4])
        if point == prefix or point.startswith(prefix + "/"):
            found.append(Path(point))
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def _unescape(text: str) -> str:
    for code, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, plain)
    return text
