"""What is kept of a folded run is its owner's alone."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0050"
down_revision = "0043"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0050_comments.sql")


downgrade = refuse_downgrade
