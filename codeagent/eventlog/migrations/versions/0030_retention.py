"""Legal holds, and the content of runs that have ended long ago."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0030_retention.sql")


downgrade = refuse_downgrade
