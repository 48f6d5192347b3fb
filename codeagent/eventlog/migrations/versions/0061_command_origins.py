"""From where commands to runs came."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0061"
down_revision = "0060"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0061_command_origins.sql")


downgrade = refuse_downgrade
