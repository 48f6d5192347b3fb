"""Old checkpoints of the log are thinned out."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0032"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0032_checkpoints.sql")


downgrade = refuse_downgrade
