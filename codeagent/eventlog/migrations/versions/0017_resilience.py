"""Models that stand in for others, what one claim of an effect tells the next, and how providers are."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0017_fallbacks.sql", "0017_providers.sql")


downgrade = refuse_downgrade
