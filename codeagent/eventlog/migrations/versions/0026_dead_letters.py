"""Dead letters as rows, and outbox rows that go once they are sent."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0026_dead_letters.sql")


downgrade = refuse_downgrade
