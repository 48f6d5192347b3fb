"""Makes and applies git patches on files held in memory, byte for byte as git would. For the scripted driver."""

from __future__ import annotations

import base64
import difflib
import hashlib
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from codeagent.sandboxes.patches import header_path
from codeagent.sandboxes.protocol import SandboxFailure

_NO_NEWLINE = b"\\ No newline at end of file\n"
_BINARY_LINE_BYTES = 52
_SNIFFED_BYTES = 8000
_NOTHING = "0" * 40
_HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@")


@dataclass(frozen=True, slots=True)
class MemoryFile:
    """A regular file's content and its executable bit."""

    data: bytes
    executable: bool = False

    @property
    def mode(self) -> str:
        return "100755" if self.executable else "100644"

    @property
    def object_name(self) -> str:
        header = f"blob {len(self.data)}\0".encode()
        return hashlib.sha1(header + self.data, usedforsecurity=False).hexdigest()


Files = Mapping[str, MemoryFile]


def make_patch(before: Files, after: Files) -> bytes:
    """The git patch that turns `before` into `after`; empty if they are equal."""
    paths = sorted(before.keys() | after.keys(), key=lambda path: path.encode())
    return b"".join(
        _file_patch(path, before.get(path), after.get(path)) for path in paths if before.get(path) != after.get(path)
    )


def _file_patch(path: str, old: MemoryFile | None, new: MemoryFile | None) -> bytes:
    names = _quoted("a/" + path), _quoted("b/" + path)
    lines = [b"diff --git %s %s\n" % names]
    suffix = ""
    if old is None and new is not None:
        lines.append(f"new file mode {new.mode}\n".encode())
    elif new is None and old is not None:
        lines.append(f"deleted file mode {old.mode}\n".encode())
    elif old is not None and new is not None:
        if old.mode != new.mode:
            lines.append(f"old mode {old.mode}\nnew mode {new.mode}\n".encode())
        else:
            suffix = f" {new.mode}"
    before, after = (b"" if file is None else file.data for file in (old, new))
    if old is None or new is None or before != after:
        left, right = (_NOTHING if file is None else file.object_name for file in (old, new))
        lines.append(f"index {left}..{right}{suffix}\n".encode())
    if before != after:
        binary = any(b"\0" in data[:_SNIFFED_BYTES] for data in (before, after))
        lines += _binary(before, after) if binary else _text(names, old, new)
    return b"".join(lines)


def _quoted(name: str) -> bytes:
    raw = name.encode()
    if all(0x20 <= byte < 0x7F and byte not in b'"\\' for byte in raw):
        return raw
    return b'"' + b"".join(bytes([b]) if 0x20 <= b < 0x7F and b not in b'"\\' else b"\\%03o" % b for b in raw) + b'"'


def _text(names: tuple[bytes, bytes], old: MemoryFile | None, new: MemoryFile | None) -> Iterable[bytes]:
    for keyword, name, file in ((b"---", names[0], old), (b"+++", names[1], new)):
        tab = b"\t" if b" " in name and not name.startswith(b'"') else b""
        yield b"%s %s\n" % (keyword, b"/dev/null" if file is None else name + tab)
    before, after = (_lines(b"" if file is None else file.data) for file in (old, new))
    for group in difflib.SequenceMatcher(None, before, after, autojunk=False).get_grouped_opcodes(3):
        (_, i1, _, j1, _), (_, _, i2, _, j2) = group[0], group[-1]
        yield b"@@ -%s +%s @@\n" % (_range(i1, i2), _range(j1, j2))
        for kind, a1, a2, b1, b2 in group:
            if kind == "equal":
                yield from _marked(b" ", before[a1:a2])
            else:
                yield from _marked(b"-", before[a1:a2])
                yield from _marked(b"+", after[b1:b2])


def _lines(data: bytes) -> list[bytes]:
    return [line + b"\n" for line in data.split(b"\n")[:-1]] + ([tail] if (tail := data.rpartition(b"\n")[2]) else [])


def _range(start: int, end: int) -> bytes:
    count = end - start
    first = start + 1 if count else start
    return b"%d" % first if count == 1 else b"%d,%d" % (first, count)


def _marked(mark: bytes, lines: list[bytes]) -> Iterable[bytes]:
    for line in lines:
        yield mark + line if line.endswith(b"\n") else mark + line + b"\n" + _NO_NEWLINE


def _binary(before: bytes, after: bytes) -> Iterable[bytes]:
    yield b"GIT binary patch\n"
    for data in (after, before):
        yield b"literal %d\n" % len(data)
        packed = zlib.compress(data)
        for start in range(0, len(packed), _BINARY_LINE_BYTES):
            piece = packed[start : start + _BINARY_LINE_BYTES]
            size = len(piece)
            yield bytes([size + 64 if size <= 26 else size + 70]) + base64.b85encode(piece, pad=True) + b"\n"
        yield b"\n"


def apply_patch(files: Files, patch: bytes) -> dict[str, MemoryFile]:
    """`files` with a validated `patch` applied. Raises `SandboxFailure` (`patch_conflict`) where they are not what the
    patch expects."""
    result = dict(files)
    lines = patch.split(b"\n")[:-1]
    position = 0
    while position < len(lines):
        position = _apply_section(result, lines, position)
    return result


def _conflict() -> SandboxFailure:
    return SandboxFailure("the patch does not apply to the archive", reason="patch_conflict", retryable=False)


def _apply_section(files: dict[str, MemoryFile], lines: list[bytes], position: int) -> int:
    path = header_path(lines[position].removeprefix(b"diff --git "))
    old = files.get(path)
    executable, created, deleted = old is not None and old.executable, False, False
    position += 1
    while position < len(lines) and not lines[position].startswith((b"diff --git ", b"--- ", b"GIT binary patch")):
        keyword, _, mode = lines[position].rpartition(b" ")
        created |= keyword == b"new file mode"
        deleted |= keyword == b"deleted file mode"
        if keyword in (b"new file mode", b"new mode"):
            executable = mode == b"100755"
        position += 1
    if created == (old is not None):
        raise _conflict()
    data = b"" if old is None else old.data
    if position < len(lines) and lines[position].startswith(b"--- "):
        data, position = _apply_hunks(data, lines, position + 2)
    elif position < len(lines) and lines[position] == b"GIT binary patch":
        data, position = _apply_binary(data, lines, position + 1)
    if deleted:
        del files[path]
    else:
        files[path] = MemoryFile(data, executable)
    return position


def _apply_hunks(data: bytes, lines: list[bytes], position: int) -> tuple[bytes, int]:
    before, after, reached = _lines(data), [], 0
    while position < len(lines) and (found := _HUNK.match(lines[position])):
        start, old, new = int(found[1]), int(found[2] or 1), int(found[3] or 1)
        start -= 1 if old else 0
        after += before[reached:start]
        reached = start
        position += 1
        while old > 0 or new > 0 or (position < len(lines) and lines[position] + b"\n" == _NO_NEWLINE):
            kind, line = lines[position][:1], lines[position][1:] + b"\n"
            position += 1
            if kind == b"\\":
                continue
            if position < len(lines) and lines[position] + b"\n" == _NO_NEWLINE:
                line = line[:-1]
            if kind != b"+":
                if before[reached : reached + 1] != [line]:
                    raise _conflict()
                reached, old = reached + 1, old - 1
            if kind != b"-":
                after.append(line)
                new -= 1
    return b"".join(after + before[reached:]), position


def _apply_binary(data: bytes, lines: list[bytes], position: int) -> tuple[bytes, int]:
    kind, size = lines[position].split(b" ")
    packed, position = _packed(lines, position + 1)
    content = zlib.decompressobj().decompress(packed, int(size) + 1)
    if position < len(lines) and lines[position].startswith((b"literal ", b"delta ")):
        _, position = _packed(lines, position + 1)  # the way back, which nobody asks for
    return (content if kind == b"literal" else _apply_delta(data, content)), position


def _packed(lines: list[bytes], position: int) -> tuple[bytes, int]:
    pieces = []
    while lines[position]:
        code = lines[position][0]
        pieces.append(base64.b85decode(lines[position][1:])[: code - 64 if code <= 90 else code - 70])
        position += 1
    return b"".join(pieces), position + 1


def _apply_delta(base: bytes, delta: bytes) -> bytes:
    """Git's delta format: two sizes, then copies from the base (high bit set) and insertions."""
    source_size, position = _varint(delta, 0)
    target_size, position = _varint(delta, position)
    if source_size != len(base):
        raise _conflict()
    pieces = []
    while position < len(delta):
        code = delta[position]
        position += 1
        if not code & 0x80:
            pieces.append(delta[position : position + code])
            position += code
            continue
        numbers = []
        for bits in (range(4), range(4, 7)):
            number = 0
            for place, bit in enumerate(bits):
                if code & (1 << bit):
                    number |= delta[position] << (8 * place)
                    position += 1
            numbers.append(number)
        offset, length = numbers[0], numbers[1] or 0x10000
        pieces.append(base[offset : offset + length])
    result = b"".join(pieces)
    if len(result) != target_size:
        raise _conflict()
    return result


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, position
