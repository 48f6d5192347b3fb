"""The database itself holds to how long the content of runs is kept."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0041_retention_policy.sql")


downgrade = refuse_downgrade
