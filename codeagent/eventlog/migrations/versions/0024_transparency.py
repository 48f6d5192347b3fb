"""The Merkle log over the events."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0024_transparency.sql")


downgrade = refuse_downgrade
