"""Splits a migration's SQL file into statements: the driver prepares each one, and prepares only one at a time."""

from __future__ import annotations

from collections.abc import Iterator


def split_statements(script: str) -> Iterator[str]:
    """Statements end with `;` at the end of a line, outside `$$` bodies."""
    lines: list[str] = []
    inside_body = False
    for line in script.splitlines():
        lines.append(line)
        if line.count("$$") % 2 == 1:
            inside_body = not inside_body
        if line.rstrip().endswith(";") and not inside_body:
            yield "\n".join(lines)
            lines.clear()
