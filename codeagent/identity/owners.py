"""That a tenant always has somebody who can act for it, whoever takes an owner away and however."""

from __future__ import annotations

from codeagent.eventlog.facts import Change
from codeagent.identity.scopes import Role


async def is_last_owner(change: Change, tenant_id: str, user_id: str) -> bool:
    """For the rest of the transaction: changes of one tenant's members wait for each other, so that two who take each
    other's place do not leave none. To be asked before sessions and users are locked."""
    await change.rows("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"members/{tenant_id}")
    rows = await change.rows("SELECT id FROM users WHERE role = $1 AND disabled_at IS NULL", Role.OWNER.value)
    return [row["id"] for row in rows] == [user_id]
