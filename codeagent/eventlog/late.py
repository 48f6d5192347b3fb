"""Facts of a subject who is being erased, recorded without their content: which artifacts they would have named."""

from __future__ import annotations

import re
from collections.abc import Iterable

from codeagent.eventlog.database import Database
from codeagent.eventlog.stored import StoredEvent

DIGEST = re.compile(rb'(?<!"dependencies":")sha256:([0-9a-f]{64})')
"""All but those of dependencies: what was installed can be installed again, and need not stay as long as the log."""


async def note_late(database: Database, events: Iterable[StoredEvent]) -> None:
    """Writes the names of those artifacts down where the erasure looks for them. What is missed goes with the grace of
    artifacts that nothing names."""
    named = {
        (event.tenant_id, bytes.fromhex(digest.decode()), event.late[0], event.metadata.get("runid", ""))
        for event in events
        if event.late is not None
        for digest in DIGEST.findall(event.late[1])
    }
    if named:
        tenants, digests, keys, runs = zip(*sorted(named), strict=True)
        await database.write(
            """INSERT INTO artifact_references (tenant_id, digest, key_id, run_id)
               SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[], $4::text[]) AS n (tenant, digest, key, run)
               WHERE EXISTS (SELECT FROM erasures x WHERE x.key_id = n.key AND x.completed_at IS NULL)
               ON CONFLICT DO NOTHING""",
            list(tenants),
            list(digests),
            list(keys),
            list(runs),
        )
