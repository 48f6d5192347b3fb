"""The difference between two texts of a file: as replacements of a unique piece of text, and for people to read."""

from __future__ import annotations

import difflib
from typing import Any

from codeagent.providers.repair.mend.source import split_lines

LONGEST_SHOWN = 300


def edits_between(originals: dict[str, str], edited: dict[str, str]) -> list[dict[str, Any]]:
    """Replacements `{path, old, new}` to be made in this order; each `old` occurs exactly once when its turn comes."""
    edits: list[dict[str, Any]] = []
    for path, text in edited.items():
        current = originals[path]
        for low, high, new in reversed(changed_blocks(current, text)):
            lines = split_lines(current)
            start, end = unique_range(lines, low, high)
            old = "".join(lines[start:end])
            replacement = "".join([*lines[start:low], new, *lines[high:end]])
            edits.append({"path": path, "old": old, "new": replacement})
            current = "".join([*lines[:start], replacement, *lines[end:]])
    return edits


def changed_blocks(before: str, after: str) -> list[tuple[int, int, str]]:
    """Line ranges of `before` and the text that takes their place."""
    old, new = split_lines(before), split_lines(after)
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    return [
        (low, high, "".join(new[start:end])) for tag, low, high, start, end in matcher.get_opcodes() if tag != "equal"
    ]


def unique_range(lines: list[str], low: int, high: int) -> tuple[int, int]:
    """The range widened until its text is not empty and occurs once."""
    whole = "".join(lines)
    start, end = low, high
    upwards = True
    while (start, end) != (0, len(lines)):
        piece = "".join(lines[start:end])
        if piece.strip() and whole.count(piece) == 1:
            break
        if (upwards and start > 0) or end >= len(lines):
            start -= 1
        else:
            end += 1
        upwards = not upwards
    return start, end


def changed_lines(before: str, after: str) -> tuple[str, str]:
    """The first changed lines, old and new, without the indentation they share."""
    blocks = changed_blocks(before, after)
    low, high, new = blocks[0] if blocks else (0, 0, "")
    old = "".join(split_lines(before)[low:high])
    shared = min((indentation(line) for line in (old + new).splitlines() if line.strip()), default=0)
    texts = ("\n".join(line[shared:].rstrip() for line in text.splitlines()) for text in (old, new))
    shown_old, shown_new = (text[:LONGEST_SHOWN] for text in texts)
    return shown_old, shown_new


def indentation(line: str) -> int:
    return len(line) - len(line.lstrip())
