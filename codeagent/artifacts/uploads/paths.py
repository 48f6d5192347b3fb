"""Which names an archive may use, and which of them belong to a version control directory."""

from __future__ import annotations

import re
import unicodedata

from codeagent.artifacts.uploads.limits import ArchiveLimits, refused, too_large

_DRIVE = re.compile(r"[A-Za-z]:")
_LONGEST_NAME_BYTES = 255
_SHOWN = 120


def shown(name: str) -> str:
    """A hostile name, fit for a message."""
    return ascii(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}...")


def decoded(name: bytes) -> str:
    """Raises `Rejected` (`archive_path_outside`) unless `name` is UTF-8."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise refused("archive_path_outside", "a name is not valid UTF-8") from None


def components(name: str, limits: ArchiveLimits) -> tuple[str, ...]:
    """The parts of a relative path, `.` and empty ones left out; () is the top itself.

    Raises `Rejected`: `archive_path_outside` for what is empty, absolute, has `..` or NUL, or would on a system where
    a backslash separates; `archive_too_large` beyond the lengths and the depth allowed.
    """
    if not name or "\0" in name:
        raise refused("archive_path_outside", "a name is empty or contains a NUL")
    if len(name.encode("utf-8", "surrogatepass")) > limits.path_bytes:
        raise too_large(f"a path has more than {limits.path_bytes} bytes")
    if name[0] in "/\\" or _DRIVE.match(name):
        raise refused("archive_path_outside", f"a path is absolute: {shown(name)}")
    if ".." in name.replace("\\", "/").split("/"):
        raise refused("archive_path_outside", f"a path contains '..': {shown(name)}")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if len(parts) > limits.depth:
        raise too_large(f"a path is more than {limits.depth} levels deep")
    if any(len(part.encode("utf-8", "surrogatepass")) > _LONGEST_NAME_BYTES for part in parts):
        raise too_large(f"a name has more than {_LONGEST_NAME_BYTES} bytes")
    return parts


def in_git_directory(parts: tuple[str, ...]) -> bool:
    """Whether some file system would take a part for `.git`: other case, trailing dots, invisible characters."""
    return any(_is_git(piece) for part in parts for piece in part.split("\\"))


def _is_git(name: str) -> bool:
    if name.isascii() and "git" not in name.lower():
        return False
    visible = "".join(char for char in name if unicodedata.category(char) != "Cf")
    stem = unicodedata.normalize("NFKC", visible).split(":")[0].casefold().rstrip(". ")
    return stem == ".git" or re.fullmatch(r"git~\d+", stem) is not None


def stays_inside(parts: tuple[str, ...], target: str, limits: ArchiveLimits) -> bool:
    """Whether a link at `parts` leading to `target` stays in the tree, read as text alone: links are not followed."""
    if not target or target.startswith("/") or "\0" in target:
        return False
    steps = target.split("/")
    if len(target.encode("utf-8", "surrogatepass")) > limits.path_bytes or len(steps) > 2 * limits.depth:
        return False
    depth = len(parts) - 1
    for step in steps:
        depth += -1 if step == ".." else 0 if step in ("", ".") else 1
        if depth < 0:
            return False
    return True
