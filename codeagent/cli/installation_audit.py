"""`codeagent admin audit`: the audit of the installation, which no tenant's key reads, on the database itself."""

from __future__ import annotations

import json
from pathlib import Path

from codeagent.cli.audit import line
from codeagent.cli.databases import command_database
from codeagent.cli.operate import guarded, load_settings, operator, say
from codeagent.edge.audit_models import cloud_event
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.messages.ids import INSTALLATION
from codeagent.projections.audit_reads import AuditReads
from codeagent.projections.audit_search import AuditFilter, AuditSearch


def show(data_dir: Path | None, wanted: AuditFilter, limit: int, *, as_json: bool) -> int:
    async def search() -> int:
        async with command_database(load_settings(data_dir), role=EDGE_ROLE) as database:
            await AuditReads(database).record(operator(), "search", wanted.text())
            entries = await AuditSearch(database).newest(INSTALLATION, wanted, None, limit)
        for event in map(cloud_event, entries):
            say(json.dumps(event) if as_json else line(event))
        return 0

    return guarded(search())
