"""What sessions' runs have brought is kept."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0040"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0040_session_totals.sql")


downgrade = refuse_downgrade
