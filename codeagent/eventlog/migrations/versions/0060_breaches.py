"""How much time is left to tell an authority of a breach."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0060"
down_revision = "0053"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0060_breaches.sql")


downgrade = refuse_downgrade
