"""What the audit itself adds to the log: that somebody read it, and that somebody was refused."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from pydantic import Field

from codeagent.messages.envelope import Event


class AuditRead(Event):
    """Somebody looked. `filter` is what they asked for, as far as they narrowed it; all pages of a search are one
    read. `log` and `republish` are operators' commands on the log itself, which show or send what events say."""

    NAME: ClassVar[str] = "audit.read"

    access: Literal["search", "event", "verification", "export", "proof", "log", "republish"]
    filter: dict[str, str] = Field(default_factory=dict)


class AccessRefused(Event):
    """A known caller was refused, `times` over between the two moments. What follows the first of a kind within a
    minute is counted and told at once, so that refusals do not fill the log.

    `credential_id` is the key or session that was shown; the user's id for `login_throttled`, the service account's
    for `wrong_secret`, where none was accepted.
    """

    NAME: ClassVar[str] = "access.refused"

    principal: str
    credential_id: str
    reason: Literal["insufficient_scope", "foreign_address", "login_throttled", "wrong_secret"]
    times: int
    first_at: datetime
    last_at: datetime
