"""The audit, where facts come from, and requests about personal data."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0011_audit.sql", "0011_privacy.sql")


downgrade = refuse_downgrade
