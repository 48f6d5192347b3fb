"""Which runs are held is one set, and those of restricted users are in it."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0051"
down_revision = "0050"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0051_held_runs.sql")


downgrade = refuse_downgrade
