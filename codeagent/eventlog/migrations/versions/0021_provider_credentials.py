"""Keys of model providers, sealed."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0021_provider_credentials.sql")


downgrade = refuse_downgrade
