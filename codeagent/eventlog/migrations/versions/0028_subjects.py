"""What belongs to a person is sealed under their key."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0028_subjects.sql", "0028_sealing.sql")


downgrade = refuse_downgrade
