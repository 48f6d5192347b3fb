"""Restriction of processing (Art. 18): a user who can neither log in nor have anything done, and is kept whole: what is
at work for them ends (`stopping`), and no policy takes their content (`held_subjects` in the database)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from codeagent import clock
from codeagent.errors import Conflict
from codeagent.eventlog.facts import Change
from codeagent.identity.held import await_removals, forget_if_removed
from codeagent.identity.owners import is_last_owner
from codeagent.identity.revocations import Kind, revoke
from codeagent.identity.sessions import SessionPolicy, end_sessions
from codeagent.identity.users import next_version
from codeagent.messages.identity_events import Revoked
from codeagent.messages.ids import user_stream
from codeagent.messages.privacy_events import ProcessingRestricted, RestrictionLifted

KEYS_REMEMBERED = timedelta(minutes=2)
"""Longer than an edge remembers what a key may do. After that the database finds none for a disabled user."""


async def restrict(change: Change, tenant_id: str, user_id: str, policy: SessionPolicy) -> dict[str, Any]:
    """Shuts a user out, on every edge within a second. Waits for what is being removed this moment. Raises `Conflict`
    for one who is restricted or erased, and for the last owner."""
    await await_removals(change, tenant_id)
    await check_another_owner(change, tenant_id, user_id)
    await end_sessions(change, user_id, Revoked.REVOKED, policy)
    rows = await change.rows(
        """UPDATE users SET restricted_at = now(), disabled_at = coalesce(disabled_at, now())
           WHERE id = $1 AND restricted_at IS NULL AND erased_at IS NULL RETURNING restricted_at""",
        user_id,
    )
    if not rows:
        raise Conflict("The user is restricted or erased already.", code="invalid_state_transition")
    keys = await change.rows(
        "SELECT id FROM api_keys WHERE principal_id = $1 AND revoked_at IS NULL AND expires_at > clock_timestamp()",
        user_id,
    )
    for key in keys:
        await revoke(change, Kind.API_KEY, key["id"], clock.now() + KEYS_REMEMBERED)
    fact = ProcessingRestricted(user_id=user_id)
    await change.record(user_stream(user_id), await next_version(change, user_id), fact)
    return {"restricted_at": rows[0]["restricted_at"].isoformat()}


async def lift(change: Change, user_id: str) -> None:
    """Lets a user in again, unless they had been disabled before. Raises `Conflict` for one who is not restricted."""
    rows = await change.rows(
        """UPDATE users SET restricted_at = NULL,
                            disabled_at = CASE WHEN disabled_at < restricted_at THEN disabled_at END
           WHERE id = $1 AND restricted_at IS NOT NULL AND erased_at IS NULL RETURNING id""",
        user_id,
    )
    if not rows:
        raise Conflict("The user is not restricted.", code="invalid_state_transition")
    await forget_if_removed(change, user_id)
    fact = RestrictionLifted(user_id=user_id)
    await change.record(user_stream(user_id), await next_version(change, user_id), fact)


async def check_another_owner(change: Change, tenant_id: str, user_id: str) -> None:
    """As `is_last_owner`. Raises `Conflict` (`last_owner`) where nobody would be left who can act for the tenant."""
    if await is_last_owner(change, tenant_id, user_id):
        raise Conflict("The tenant's last owner has to name another one first.", code="last_owner")
