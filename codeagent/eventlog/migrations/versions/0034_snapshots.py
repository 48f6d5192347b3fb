"""Folds of runs are kept."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0034_snapshots.sql")


downgrade = refuse_downgrade
