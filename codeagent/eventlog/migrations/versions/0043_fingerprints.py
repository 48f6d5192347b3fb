"""An erasure takes the digests of what somebody called things as well."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0043"
down_revision = "0042"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0043_fingerprints.sql")


downgrade = refuse_downgrade
