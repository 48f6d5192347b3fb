"""A checkpoint of the log as a message. Its value is the signed note itself, and no JSON: kept as it came, it is what
any tool that knows c2sp.org/signed-note verifies, offline and without us."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from codeagent.messages.envelope import SCHEMA_BASE, TYPE_PREFIX, Envelope, Headers, to_headers
from codeagent.messages.ids import INSTALLATION, derived_uuid

NAME, VERSION = "audit.checkpoint_signed", 1
MESSAGE = f"{NAME}.v{VERSION}"
TYPE = f"{TYPE_PREFIX}{MESSAGE}"
CONTENT_TYPE = "text/plain; charset=utf-8"
SOURCE = "/audit/log"

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": f"{SCHEMA_BASE}{MESSAGE}.json",
    "title": "CheckpointSigned",
    "description": "A signed checkpoint of the event log (c2sp.org/tlog-checkpoint): origin, number of entries, root, "
    "and the signatures after an empty line.",
    "type": "string",
    "contentMediaType": "text/plain",
    "pattern": r"^[^\n]+\n[1-9][0-9]*\n[A-Za-z0-9+/]{43}=\n([^\n]+\n)*\n(\u2014 [^ \n]+ [A-Za-z0-9+/=]+\n)+$",
}
"""Of the value, read as text."""


def checkpoint_envelope(note: str, origin: str, time: datetime) -> Envelope:
    """The same note has the same id, however often it is sent."""
    id = derived_uuid(TYPE, note)
    return Envelope(
        id=id,
        name=NAME,
        version=VERSION,
        source=SOURCE,
        time=time,
        tenant_id=INSTALLATION,
        key=origin,
        correlation_id=id,
        subject=origin,
    )


def checkpoint_headers(envelope: Envelope) -> Headers:
    return to_headers(envelope, content_type=CONTENT_TYPE)
