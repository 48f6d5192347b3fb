"""Whom a tenant wants told, and what was sent to them."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0006_webhooks.sql")


downgrade = refuse_downgrade
