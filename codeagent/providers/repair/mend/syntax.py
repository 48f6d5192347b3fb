"""Edits of a file that does not parse: a missing colon, bracket, quote or comma, a wrong indentation."""

from __future__ import annotations

import re
from collections.abc import Iterator

from codeagent.providers.repair.mend.source import Candidate, SourceFile, Splice

OPENERS = {"(": ")", "[": "]", "{": "}"}


def syntax_edits(source: SourceFile) -> Iterator[Candidate]:
    """Candidates around the place Python complains about; those that still do not parse are sorted out later."""
    error = source.syntax_error
    if error is None or not source.lines:
        return
    reported = min(max(error.lineno or 1, 1), len(source.lines))
    for distance, line in enumerate((reported, reported - 1, reported - 2, reported + 1)):
        if 1 <= line <= len(source.lines):
            for new, prior in repaired_lines(source.lines[line - 1]):
                yield whole_line(source, line, new, prior - 0.1 * distance)
    yield from indentation_edits(source, reported)
    for line in range(max(1, reported - 12), reported):
        yield from missing_bracket_edits(source, line)


def whole_line(source: SourceFile, line: int, new: str, prior: float) -> Candidate:
    start, end = source.line_start(line), source.line_start(line + 1)
    return Candidate(source.path, line, "syntax", prior, (Splice(start, end, new),))


def repaired_lines(line: str) -> Iterator[tuple[str, float]]:
    """A line with the mistakes people make put right, one at a time."""
    body = line.rstrip("\r\n")
    end = line[len(body) :]
    code = re.sub(r"\s+#[^'\"]*$", "", body)
    comment = body[len(code) :]
    if re.match(r"\s*(async\s+)?(def|class|if|elif|else|for|while|try|except|finally|with|match|case)\b", code):
        if not code.rstrip().endswith(":"):
            yield code.rstrip() + ":" + comment + end, 1.0
        yield re.sub(r"\)?:\s*$", "):", code) + comment + end, 0.8
    missing = unclosed(code)
    if missing:
        tail = ":" if code.rstrip().endswith(":") else ""
        yield code.rstrip().rstrip(":") + missing + tail + comment + end, 0.95
    if re.match(r"\s*(if|elif|while)\b", code):
        yield re.sub(r"(?<![=!<>])=(?!=)", "==", code, count=1) + comment + end, 0.9
    yield re.sub(r"\belse\s+if\b", "elif", code) + comment + end, 0.9
    for wrong, right in (("&&", " and "), ("||", " or "), ("===", "=="), ("!==", "!="), ("++", " += 1"), ("=>", ">=")):
        yield code.replace(wrong, right) + comment + end, 0.7
    for quote in "\"'":
        if code.count(quote) % 2:
            yield code.rstrip() + quote + comment + end, 0.7
            yield re.sub(r"(\)?\]?:?)\s*$", lambda found: quote + found.group(1), code) + comment + end, 0.65  # noqa: B023
    yield code.rstrip() + "," + comment + end, 0.6
    for closer in ")]}":
        if code.count(closer):
            place = code.rindex(closer)
            yield code[:place] + code[place + 1 :] + comment + end, 0.55
    yield re.sub(r"^(\s*)print\s+(.+)$", r"\1print(\2)", code) + comment + end, 0.6
    yield re.sub(r"([\w\"')\]])(\s+)([\w\"'(\[])", r"\1,\2\3", code, count=1) + comment + end, 0.3


def indentation_edits(source: SourceFile, reported: int) -> Iterator[Candidate]:
    """The line on the indentation of its neighbours, or one level around it."""
    line = source.lines[reported - 1]
    body = line.lstrip(" \t")
    before = next((other for other in reversed(source.lines[: reported - 1]) if other.strip()), "")
    level = before[: len(before) - len(before.lstrip())]
    own = line[: len(line) - len(body)]
    for indent, prior in ((level + "    ", 0.8 if before.rstrip().endswith(":") else 0.4), (level, 0.7),
                          (level[:-4], 0.5), (own[:-4], 0.4), (own + "    ", 0.4)):  # fmt: skip
        if indent != own:
            yield whole_line(source, reported, indent + body, prior)
    if before.rstrip().endswith(":"):
        start = source.line_start(reported)
        yield Candidate(source.path, reported, "syntax", 0.4, (Splice(start, start, f"{level}    pass\n"),))


def missing_bracket_edits(source: SourceFile, line: int) -> Iterator[Candidate]:
    """Python reports an open bracket far below the line that forgot to close it."""
    body = source.lines[line - 1].rstrip("\r\n")
    end = source.lines[line - 1][len(body) :]
    missing = unclosed(body)
    if missing:
        yield whole_line(source, line, body.rstrip() + missing + end, 0.5)
        yield whole_line(source, line, body.rstrip().rstrip(",:") + missing + body.rstrip()[-1:] + end, 0.45)


def unclosed(code: str) -> str:
    """The brackets that close what a line leaves open, texts aside."""
    bare = re.sub(r"\"[^\"]*\"|'[^']*'", "", code)
    stack: list[str] = []
    for character in bare:
        if character in OPENERS:
            stack.append(OPENERS[character])
        elif stack and character == stack[-1]:
            stack.pop()
    return "".join(reversed(stack))
