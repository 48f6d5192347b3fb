"""What every archive format is read as: one entry after the other, its content to be taken before the next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto


class Kind(Enum):
    DIRECTORY = auto()
    FILE = auto()
    SYMLINK = auto()
    HARD_LINK = auto()
    SPECIAL = auto()


@dataclass(frozen=True, slots=True)
class Member:
    """One entry, unchecked but for its path. `target` is a link's, as written; `content` a file's, in pieces."""

    parts: tuple[str, ...]
    kind: Kind
    executable: bool = False
    target: str = ""
    content: Iterator[bytes] = field(default_factory=lambda: iter(()))
