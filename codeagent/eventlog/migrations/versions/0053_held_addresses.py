"""The address of somebody who is held outlives their removal."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0053"
down_revision = "0052"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0053_held_addresses.sql")


downgrade = refuse_downgrade
