"""An erasure takes what was written about somebody in their requests."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0052"
down_revision = "0051"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0052_request_texts.sql")


downgrade = refuse_downgrade
