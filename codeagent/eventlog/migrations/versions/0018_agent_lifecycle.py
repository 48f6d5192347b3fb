"""What runs of agents' versions came to, and canaries."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0018_agent_runs.sql", "0018_canaries.sql")


downgrade = refuse_downgrade
