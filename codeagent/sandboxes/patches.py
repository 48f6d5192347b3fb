"""Reads a git patch as untrusted bytes: what it touches is taken from its structure, never from its content."""

from __future__ import annotations

import re
import string
import unicodedata
from dataclasses import dataclass, field

from codeagent.sandboxes.protocol import UNCHANGED, FileState, Limits, Patch, SandboxFailure

_FILE_MODES = frozenset({b"100644", b"100755"})
_LINK_MODE = b"120000"
_DECLARED_BYTES_PER_PATCH_BYTE = 4
"""A binary patch may unpack to this many times the size allowed for the patch itself."""

_INDEX = re.compile(rb"index ([0-9a-f]{40}|[0-9a-f]{64})\.\.([0-9a-f]{40}|[0-9a-f]{64})(?: (\d{6}))?")
_HUNK = re.compile(rb"@@ -\d{1,9}(?:,(\d{1,9}))? \+\d{1,9}(?:,(\d{1,9}))? @@(?: .*)?", re.DOTALL)
_BINARY = re.compile(rb"(literal|delta) (\d{1,12})")
_NO_NEWLINE = b"\\ No newline at end of file"
_LENGTH_CODES = {code: size for size, code in enumerate(string.ascii_uppercase + string.ascii_lowercase, start=1)}
_BASE85 = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~")
_ESCAPES = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, '"': 34, "\\": 92}


def _refused(detail: str) -> SandboxFailure:
    return SandboxFailure(detail, reason="patch_refused", retryable=False)


def validate_patch(text: bytes, limits: Limits) -> Patch:
    """The patch with the paths it touches, in order. Nothing is executed or written.

    Accepts what `git diff --binary --full-index --no-renames` writes for regular files, and the deletion of links.
    Raises `SandboxFailure`: `patch_too_large` beyond `patch_bytes` or `patch_files`, `patch_refused` for anything else
    that is not plainly such a patch or whose paths or modes are not acceptable.
    """
    if len(text) > limits.patch_bytes:
        raise SandboxFailure(
            f"the patch has {len(text)} bytes, {limits.patch_bytes} are allowed",
            reason="patch_too_large",
            retryable=False,
        )
    if text and not text.endswith(b"\n"):
        raise _refused("the patch ends in the middle of a line")
    lines = _Lines(text.split(b"\n")[:-1])
    declared_left = limits.patch_bytes * _DECLARED_BYTES_PER_PATCH_BYTE
    files: dict[str, _File] = {}
    while not lines.done:
        file = _read_file(lines)
        declared_left -= file.declared_bytes
        if declared_left < 0 or (file.path not in files and len(files) >= limits.patch_files):
            raise SandboxFailure(
                "the patch touches more files or bytes than allowed", reason="patch_too_large", retryable=False
            )
        before = files.get(file.path)
        if before is not None and not (before.deleted and file.created):
            raise _refused(f"the patch changes a file twice: {file.path!a}")
        files[file.path] = file
    return Patch(text=text, files=tuple(files), states={path: file.state for path, file in files.items()})


def sections(text: bytes, limits: Limits) -> list[tuple[str, bytes]]:
    """The patch, file by file: the path, and all that it says of it. Raises as `validate_patch` does."""
    validate_patch(text, limits)
    lines = _Lines(text.split(b"\n")[:-1])
    found: list[tuple[str, bytes]] = []
    while not lines.done:
        begin = lines.position
        path = _read_file(lines).path
        found.append((path, b"".join(line + b"\n" for line in lines.lines[begin : lines.position])))
    return found


@dataclass
class _Lines:
    """A cursor over the patch's lines."""

    lines: list[bytes]
    position: int = 0

    @property
    def done(self) -> bool:
        return self.position >= len(self.lines)

    def peek(self) -> bytes:
        return b"" if self.done else self.lines[self.position]

    def take(self) -> bytes:
        if self.done:
            raise _refused("the patch ends too early")
        self.position += 1
        return self.lines[self.position - 1]


@dataclass
class _File:
    path: str
    created: bool = False
    deleted: bool = False
    modes: list[bytes] = field(default_factory=list)
    blob: str = UNCHANGED
    declared_bytes: int = 0

    @property
    def state(self) -> FileState:
        if self.deleted:
            return FileState("", "")
        return FileState(self.blob, self.modes[-1].decode("ascii") if self.modes else "", self.created)


def _read_file(lines: _Lines) -> _File:
    header = lines.take()
    if not header.startswith(b"diff --git "):
        raise _refused("the patch has a line where a file should begin")
    file = _File(header_path(header.removeprefix(b"diff --git ")))
    has_index = _read_extended_header(lines, file)
    _check_modes(file)
    if lines.peek() == b"GIT binary patch":
        lines.take()
        file.declared_bytes = _read_binary(lines) + _read_binary(lines, optional=True)
    elif lines.peek().startswith(b"--- "):
        _read_text(lines, file)
    elif has_index and not (file.created or file.deleted):
        raise _refused(f"the patch does not say how a file changes: {file.path!a}")
    return file


def header_path(names: bytes) -> str:
    """Both names are the same file, `a/` before one and `b/` before the other; that makes spaces unambiguous."""
    if names.startswith(b'"'):
        left, right = _quoted_pair(names)
    else:
        middle = len(names) // 2
        left, right = names[:middle], names[middle + 1 :]
        if names[middle : middle + 1] != b" ":
            raise _refused("the patch renames or names a file ambiguously")
    if not (left.startswith(b"a/") and right.startswith(b"b/") and left[2:] == right[2:]):
        raise _refused("the patch renames or names a file ambiguously")
    return _checked_path(left[2:])


def _quoted_pair(names: bytes) -> tuple[bytes, bytes]:
    found = re.fullmatch(rb'("(?:[^"\\]|\\.)*") ("(?:[^"\\]|\\.)*")', names, re.DOTALL)
    if found is None:
        raise _refused("the patch quotes a file name wrongly")
    return _unquoted(found.group(1)), _unquoted(found.group(2))


def _unquoted(quoted: bytes) -> bytes:
    def plain(match: re.Match[bytes]) -> bytes:
        escape = match.group(1).decode("latin-1")
        if escape.isdigit() and int(escape, 8) <= 255:
            return bytes([int(escape, 8)])
        if escape in _ESCAPES:
            return bytes([_ESCAPES[escape]])
        raise _refused("the patch quotes a file name wrongly")

    return re.sub(rb"\\([0-7]{3}|.)", plain, quoted[1:-1], flags=re.DOTALL)


def _checked_path(raw: bytes) -> str:
    try:
        path = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _refused("the patch names a file that is not UTF-8") from None
    if not path or path.startswith("/") or len(raw) > 4000:
        raise _refused("the patch names a file by an unacceptable path")
    if any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in path):
        raise _refused(f"the patch names a file with control or invisible characters: {path!a}")
    for part in path.split("/"):
        if part in ("", ".", "..") or any(_is_git_directory(piece) for piece in part.split("\\")):
            raise _refused(f"the patch names a file by an unacceptable path: {path!a}")
    return path


def _is_git_directory(name: str) -> bool:
    """Names that some file system takes for `.git`: other case, trailing dots, short names, alternate streams."""
    stem = unicodedata.normalize("NFKC", name).split(":")[0].casefold().rstrip(". ")
    return stem == ".git" or re.fullmatch(r"git~\d+", stem) is not None


def _read_extended_header(lines: _Lines, file: _File) -> bool:
    """Modes and object names; returns whether there was an index line, which is the last of them."""
    while True:
        line = lines.peek()
        keyword, _, mode = line.rpartition(b" ")
        if keyword in (b"old mode", b"new mode", b"new file mode", b"deleted file mode"):
            lines.take()
            file.modes.append(mode)
            file.created |= keyword == b"new file mode"
            file.deleted |= keyword == b"deleted file mode"
        elif line.startswith(b"index "):
            found = _INDEX.fullmatch(lines.take())
            if found is None:
                raise _refused("the patch has an unreadable index line")
            file.blob = found.group(2).decode("ascii")
            if found.group(3):
                file.modes.append(found.group(3))
            return True
        elif line.startswith((b"diff --git ", b"--- ", b"GIT binary patch")) or lines.done:
            if not file.modes:
                raise _refused("the patch has a file without a change")
            return False
        else:
            raise _refused("the patch has an unknown header line")


def _check_modes(file: _File) -> None:
    allowed = _FILE_MODES | ({_LINK_MODE} if file.deleted else frozenset())
    if any(mode not in allowed for mode in file.modes):
        raise _refused(f"only regular files can be changed, not links or submodules: {file.path!a}")


def _read_text(lines: _Lines, file: _File) -> None:
    _check_name(lines.take(), b"--- ", b"a/", file, absent=file.created)
    _check_name(lines.take(), b"+++ ", b"b/", file, absent=file.deleted)
    if not lines.peek().startswith(b"@@ "):
        raise _refused("the patch has a file header without a change")
    while lines.peek().startswith(b"@@ "):
        found = _HUNK.fullmatch(lines.take())
        if found is None:
            raise _refused("the patch has an unreadable hunk header")
        _skip_hunk(lines, *(1 if count is None else int(count) for count in found.groups()))


def _check_name(line: bytes, keyword: bytes, side: bytes, file: _File, *, absent: bool) -> None:
    if not line.startswith(keyword):
        raise _refused("the patch has an incomplete file header")
    name = line.removeprefix(keyword)
    if absent:
        matches = name == b"/dev/null"
    else:
        plain = _unquoted(name.removesuffix(b"\t")) if name.startswith(b'"') else name.removesuffix(b"\t")
        matches = plain == side + file.path.encode()
    if not matches:
        raise _refused(f"the patch names two files where one is changed: {file.path!a}")


def _skip_hunk(lines: _Lines, old: int, new: int) -> None:
    """Passes over a hunk by its counts, so that nothing in a file's content can pass for a header."""
    while old > 0 or new > 0:
        line = lines.take()
        kind = line[:1]
        if kind not in (b" ", b"-", b"+") and line != _NO_NEWLINE:
            raise _refused("the patch has an unreadable hunk")
        old -= kind in (b" ", b"-")
        new -= kind in (b" ", b"+")
        if old < 0 or new < 0:
            raise _refused("the patch has a hunk that does not match its header")
    if lines.peek() == _NO_NEWLINE:
        lines.take()


def _read_binary(lines: _Lines, *, optional: bool = False) -> int:
    """Passes over one binary hunk; returns how many bytes it says it unpacks to."""
    found = _BINARY.fullmatch(lines.peek())
    if found is None:
        if optional:
            return 0
        raise _refused("the patch has an unreadable binary part")
    lines.take()
    while line := lines.take():
        size = _LENGTH_CODES.get(chr(line[0]), 0)
        if not size or len(line) != 1 + (size + 3) // 4 * 5 or not _BASE85.issuperset(line[1:]):
            raise _refused("the patch has an unreadable binary part")
    return int(found.group(2))
