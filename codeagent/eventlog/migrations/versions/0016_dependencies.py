"""How projects install what they depend on, and what tenants have installed."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0016_dependencies.sql")


downgrade = refuse_downgrade
