"""Erasure (Art. 17) as far as it goes today: who somebody is, and whatever lets them in. What they had agents do stays
in the log, and is named."""

from __future__ import annotations

from typing import Any

import orjson

from codeagent.eventlog.facts import Change
from codeagent.identity.api_keys import revoke_keys_of
from codeagent.identity.sessions import SessionPolicy, end_sessions
from codeagent.identity.users import next_version
from codeagent.messages.events import RunSubmitted
from codeagent.messages.identity_events import Revoked
from codeagent.messages.ids import user_stream
from codeagent.messages.privacy_events import UserErased
from codeagent.privacy.personal_data import MESSAGE_FIELDS
from codeagent.privacy.restriction import check_another_owner

WHY_REMAINING = "The log is append-only, and its content is not encrypted by subject yet."
AND_ALL_OF_IT = ", and whatever follows in the run's log and among its artifacts"
PSEUDONYMS = "audit: the user's id in facts and their projection"
WHY_PSEUDONYMS = "Proof of who was responsible (Art. 17(3)(e)). Nothing leads from the id to a person any more."
REQUESTS = "privacy requests of this subject"
WHY_REQUESTS = "Proof that the request was answered (Art. 5(2))."


async def erase(change: Change, user_id: str, policy: SessionPolicy) -> dict[str, Any]:
    """Ends all access within a second and removes the identity, in the transaction of `change`.

    Returns what was `removed` (rows by table), what `remaining` content holds the request open, and what is `kept`.
    Raises `Conflict` for the last owner.
    """
    await end_sessions(change, user_id, Revoked.REVOKED, policy)
    await check_another_owner(change, user_id)
    await revoke_keys_of(change, user_id)
    [[counts]] = await change.rows("SELECT erase_identity_v1($1)", user_id)
    removed: dict[str, int] = orjson.loads(counts)
    await change.record(
        user_stream(user_id), await next_version(change, user_id), UserErased(user_id=user_id, removed=removed)
    )
    return {
        "removed": removed,
        "remaining": await left_in_log(change, user_id),
        "kept": [{"what": PSEUDONYMS, "why": WHY_PSEUDONYMS}, {"what": REQUESTS, "why": WHY_REQUESTS}],
    }


async def left_in_log(change: Change, user_id: str) -> list[dict[str, Any]]:
    """What the subject has written that is still in the log: which fields of which facts, and how many facts."""
    rows = await change.rows(
        """SELECT action, count(*) AS count FROM audit_events
           WHERE tenant_id = current_tenant() AND actor_id = $1
                 AND action = ANY ($2)
           GROUP BY action ORDER BY action""",
        user_id,
        sorted({field.message for field in MESSAGE_FIELDS}),
    )
    return [{"what": _content_of(row["action"]), "count": row["count"], "why": WHY_REMAINING} for row in rows]


def _content_of(message: str) -> str:
    fields = ", ".join(field.field for field in MESSAGE_FIELDS if field.message == message)
    return f"{message}: {fields}{AND_ALL_OF_IT if message == RunSubmitted.NAME else ''}"
