"""Whether somebody is under a legal hold: asked by whoever is about to remove what is theirs."""

from __future__ import annotations

from codeagent.eventlog.facts import Change

_OF = "hashtextextended('legal_holds-' || $1, 0)"


async def is_held(change: Change, tenant_id: str, subject_id: str) -> bool:
    """For the rest of the transaction: none is placed meanwhile. To be asked before anything else is locked."""
    await change.rows(f"SELECT pg_advisory_xact_lock_shared({_OF})", tenant_id)
    query = "SELECT FROM legal_holds WHERE tenant_id = $1 AND subject_id = $2"
    return bool(await change.rows(query, tenant_id, subject_id))


async def await_removals(change: Change, tenant_id: str) -> None:
    """Waits for what is being removed this moment; nothing is until the end of the transaction. Before anything else is
    locked."""
    await change.rows(f"SELECT pg_advisory_xact_lock({_OF})", tenant_id)


async def forget_if_removed(change: Change, user_id: str) -> None:
    """Takes the address of somebody who was removed while it had to be kept, once nothing keeps it any more."""
    await change.rows(
        """UPDATE users u SET email_digest = NULL, email_sealed = NULL
           WHERE id = $1 AND disabled_at IS NOT NULL AND restricted_at IS NULL AND email_sealed IS NOT NULL
               AND NOT EXISTS (SELECT FROM legal_holds h WHERE h.tenant_id = u.tenant_id AND h.subject_id = u.id)""",
        user_id,
    )
