"""Splits a migration's SQL file into statements: the driver prepares each one, and prepares only one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

from alembic import op

from codeagent.errors import Rejected


def run_scripts(*names: str) -> None:
    """Runs files of `sql/`, in order, in the transaction of the migration that calls it."""
    folder = files("codeagent.eventlog.migrations") / "sql"
    for name in names:
        for statement in split_statements((folder / name).read_text()):
            op.get_bind().exec_driver_sql(statement)


def refuse_downgrade() -> None:
    """Every version's way back: facts are not taken back."""
    raise Rejected("the event log is never taken back: restore a backup instead", code="no_downgrade")


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
