"""What model calls that are under way may spend."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0019_spending.sql")


downgrade = refuse_downgrade
