"""Readers of one category of streams, and the role that services work under."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0027_categories.sql", "0027_services.sql")


downgrade = refuse_downgrade
