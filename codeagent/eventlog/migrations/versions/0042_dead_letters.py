"""Dead letters say of whom they are."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0042_dead_letters.sql")


downgrade = refuse_downgrade
