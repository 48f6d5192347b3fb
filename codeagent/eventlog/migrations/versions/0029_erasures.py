"""Erasures of subjects."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0029_erasures.sql")


downgrade = refuse_downgrade
