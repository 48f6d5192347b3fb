"""A second wall between tenants: the edge's own role, and row-level security."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0002_tenancy.sql")


downgrade = refuse_downgrade
