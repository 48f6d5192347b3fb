"""The event log, its two ledgers, accepted submissions and the first read model."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0001_tables.sql", "0001_commit_step.sql", "0001_effects.sql", "0001_accept.sql")


downgrade = refuse_downgrade
