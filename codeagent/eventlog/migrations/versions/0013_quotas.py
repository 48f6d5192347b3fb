"""What tenants may use of sandboxes."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0013_quotas.sql")


downgrade = refuse_downgrade
