"""Lists of runs tell which run one goes on with."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0033_replayed_runs.sql")


downgrade = refuse_downgrade
