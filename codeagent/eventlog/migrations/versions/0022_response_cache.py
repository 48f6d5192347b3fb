"""Replies of models that are given again to those who ask the same."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0022_response_cache.sql")


downgrade = refuse_downgrade
