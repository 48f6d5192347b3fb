"""What commands of an agent's runs may reach."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0015_egress.sql")


downgrade = refuse_downgrade
