"""Projects, sessions, and where runs belong."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0007_projects.sql", "0007_sessions.sql", "0007_placements.sql")


downgrade = refuse_downgrade
