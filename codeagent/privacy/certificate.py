"""The certificate of an erasure: what was done and what remains, as a note that the log's key has signed.

    codeagent.io/erasure/v1
    {"...": "..."}                 JSON on one line

    - <origin> <signature>

Anybody who has the log's public key can check it (c2sp.org/signed-note). It names the subject by the pseudonymous id,
which nothing leads from to a person any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from codeagent.messages.envelope import instant
from codeagent.privacy.tables import Erasure
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.notes import NoteRejected, open_note, sign_note

HEADER = "codeagent.io/erasure/v1"
REMAINS: Mapping[str, str] = {
    "facts without content": "that something was done, when, and by which pseudonymous id (Art. 17(3)(e))",
    "usage and costs": "figures under the pseudonymous id",
    "topics of the broker": "copies of facts and commands until the retention of each topic has passed; of those that "
    "could not be handled for 30 days",
    "memory that edges share": "folded runs, sealed, for an hour at most, and shown to nobody",
    "memory of processes": "what they have read of runs, until other things take its place or they end",
    "logs of processes": "pseudonymous ids, as long as whoever collects them keeps them",
    "workspaces": "removed with their run's end; those of a worker that is down, when it starts again",
    "backups of the key store": "they have to expire within 30 days; until then they could bring the key back",
    "what others went on with": "runs of others after theirs in a session, and replays of theirs by others, keep what "
    "was made of it there; a replay keeps its task",
    "backups of the database": "until they expire the password hash, digests of the address and of keys, and network "
    "addresses of what was done; nothing that was sealed can be read in them",
    "what others were told": "what models have made of a comment in runs of others; the comment itself where it was "
    "written before comments were kept apart",
    "what was sent or taken away": "what receivers of webhooks, servers of tools and hosts of repositories were sent; "
    "exports and artifacts that somebody has downloaded",
    "what runs have installed": "packages that other runs of the tenant use as well, until none has for a time",
    "requests of the subject": "which right was exercised when, and when it was answered, as proof (Art. 5(2))",
    "what the organisation has of them": "agents, projects and the like that they made, and credentials of projects",
    "uploads that nothing names": "removed by themselves after the grace of artifacts",
    "artifacts that others have just asked for": "the same, unless somebody names them",
    "model providers": "what they keep of requests by their own terms",
}
"""What an erasure does not reach, and why. It is told in every certificate."""


def certificate(erasure: Erasure, counts: Mapping[str, int], completed_at: Any, keys: LogKeys) -> str:
    """The signed text. `keys` can sign."""
    told = {
        "request_id": erasure.id,
        "tenant_id": erasure.tenant_id,
        "subject_id": erasure.subject_id,
        "key_id": erasure.key_id,
        "begun_at": instant(erasure.begun_at),
        "key_closed_at": None if erasure.closed_at is None else instant(erasure.closed_at),
        "key_shredded_at": None if erasure.shredded_at is None else instant(erasure.shredded_at),
        "completed_at": instant(completed_at),
        "removed": dict(counts),
        "remains": dict(REMAINS),
    }
    line = orjson.dumps(told, option=orjson.OPT_SORT_KEYS).decode()
    return sign_note(f"{HEADER}\n{line}\n", keys.signing)


def read_certificate(text: str, keys: LogKeys) -> dict[str, Any]:
    """What a certificate says, once a key of the log is seen to have signed it. Raises `NoteRejected`."""
    header, _, body = open_note(text, keys.verifying).partition("\n")
    if header != HEADER:
        raise NoteRejected("this is no certificate of an erasure", code="note_malformed")
    found: dict[str, Any] = orjson.loads(body)
    return found
