"""The beginning of an erasure (Art. 17), in one transaction: who somebody is, and whatever lets them in."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson

from codeagent.errors import Unreadable
from codeagent.eventlog.database import Row
from codeagent.eventlog.facts import Change
from codeagent.identity.api_keys import revoke_keys_of
from codeagent.identity.sessions import SessionPolicy, end_sessions
from codeagent.identity.users import next_version
from codeagent.messages.catalog import decode_data
from codeagent.messages.events import RunSubmitted
from codeagent.messages.identity_events import Revoked
from codeagent.messages.ids import user_stream
from codeagent.messages.personal import holds_content
from codeagent.messages.privacy_events import UserErased
from codeagent.privacy.message_fields import MESSAGE_FIELDS
from codeagent.privacy.restriction import check_another_owner
from codeagent.response_cache.tables import forget_replies_of

WHY_REMAINING = "It is in the log, which is append-only, and was not sealed with a key of the subject's."
AND_ALL_OF_IT = ", and whatever follows in the run's log and among its artifacts"
PSEUDONYMS = "audit: the user's id in facts and their projection"
WHY_PSEUDONYMS = "Proof of who was responsible (Art. 17(3)(e)). Nothing leads from the id to a person any more."
OF_TENANT = "agents, projects, budgets and the like that the subject made"
WHY_OF_TENANT = "They are the organisation's, and others work with them."
REQUESTS = "privacy requests of this subject"
WHY_REQUESTS = "Proof that the request was answered (Art. 5(2))."


async def erase(change: Change, tenant_id: str, request_id: str, user_id: str, policy: SessionPolicy) -> dict[str, Any]:
    """Ends all access within a second and removes the identity, in the transaction of `change`. The erasure of what the
    subject has left in the log begins (`content_erasure`).

    Returns what was `removed` (rows by table), what `remaining` content holds the request open, since it was written
    down before anything was sealed, and what is `kept`. Raises `Conflict` for the last owner.
    """
    await check_another_owner(change, tenant_id, user_id)
    await end_sessions(change, user_id, Revoked.REVOKED, policy)
    await revoke_keys_of(change, user_id)
    [[counts]] = await change.rows("SELECT erase_identity_v3($1)", user_id)
    removed: dict[str, int] = orjson.loads(counts)
    removed["response_cache"] = await forget_replies_of(change, user_id)
    await change.rows(
        """INSERT INTO erasures (id, tenant_id, subject_id) VALUES ($1, current_tenant(), $2)
           ON CONFLICT (tenant_id, subject_id) DO NOTHING""",
        request_id,
        user_id,
    )
    await change.record(
        user_stream(user_id), await next_version(change, user_id), UserErased(user_id=user_id, removed=removed)
    )
    return {
        "removed": removed,
        "remaining": await left_in_log(change, user_id),
        "kept": [
            {"what": PSEUDONYMS, "why": WHY_PSEUDONYMS},
            {"what": REQUESTS, "why": WHY_REQUESTS},
            {"what": OF_TENANT, "why": WHY_OF_TENANT},
        ],
    }


async def left_in_log(change: Change, user_id: str) -> list[dict[str, Any]]:
    """What the subject has written that is in the log in clear: which fields of which facts, and how many facts."""
    rows = await change.rows(
        """SELECT e.event_type, e.schema_version, e.data
           FROM audit_events a JOIN events e ON e.event_id = a.event_id
           WHERE a.tenant_id = current_tenant() AND a.actor_id = $1 AND a.action = ANY ($2) AND e.key_id IS NULL
           ORDER BY e.event_type""",
        user_id,
        sorted({field.message for field in MESSAGE_FIELDS if field.is_sealed}),
    )
    counts = Counter(row["event_type"] for row in rows if _says_anything(row))
    return [{"what": _content_of(name), "count": count, "why": WHY_REMAINING} for name, count in counts.items()]


def _says_anything(row: Row) -> bool:
    """A fact that has nothing personal to say, or was recorded without it, is not sealed either."""
    try:
        return holds_content(decode_data(row["event_type"], row["schema_version"], row["data"]))
    except Unreadable:
        return True


def _content_of(message: str) -> str:
    fields = ", ".join(field.field for field in MESSAGE_FIELDS if field.message == message and field.is_sealed)
    return f"{message}: {fields}{AND_ALL_OF_IT if message == RunSubmitted.NAME else ''}"
