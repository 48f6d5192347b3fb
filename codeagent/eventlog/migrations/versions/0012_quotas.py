"""What tenants may use of sandboxes."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0012_quotas.sql")


downgrade = refuse_downgrade
