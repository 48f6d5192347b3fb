"""A second wall between tenants: the edge's own role, and row-level security."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import run_scripts

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0002_tenancy.sql")


def downgrade() -> None:
    raise NotImplementedError("the event log is never taken back: restore a backup instead")
