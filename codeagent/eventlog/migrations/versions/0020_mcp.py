"""Tools of MCP servers that an agent's version has pinned."""

from __future__ import annotations

from codeagent.eventlog.migrations.statements import refuse_downgrade, run_scripts

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0020_mcp.sql")


downgrade = refuse_downgrade
