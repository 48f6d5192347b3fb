"""The event log, its two ledgers, accepted submissions and the first read model."""

from __future__ import annotations

from importlib.resources import files

from alembic import op

from codeagent.eventlog.migrations.statements import split_statements

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    folder = files("codeagent.eventlog.migrations") / "sql"
    for name in ("0001_tables.sql", "0001_commit_step.sql", "0001_effects.sql", "0001_accept.sql"):
        for statement in split_statements((folder / name).read_text()):
            op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    raise NotImplementedError("the event log is never taken back: restore a backup instead")
