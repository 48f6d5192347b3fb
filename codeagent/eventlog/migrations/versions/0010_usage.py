"""What runs have used, what tenants let them use, and what operators look at over HTTP."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0010"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0010_usage.sql", "0010_budgets.sql", "0010_operators.sql")


downgrade = refuse_downgrade
