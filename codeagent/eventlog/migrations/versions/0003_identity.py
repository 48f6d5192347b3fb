"""Users and their tenants, passwords, login sessions, and the keys that sign access tokens."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0003_identity.sql", "0003_logins.sql")


downgrade = refuse_downgrade
