"""The control plane's facts, API keys, and credentials that end before their time."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0004_facts.sql", "0004_revocations.sql", "0004_api_keys.sql")


downgrade = refuse_downgrade
