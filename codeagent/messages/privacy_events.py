"""What happens to requests of persons about their data, and to breaches. Free text stays in the rows: what somebody
writes about a person must not outlive that person's erasure."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from codeagent.messages.envelope import Event


class PrivacyKind(StrEnum):
    """The rights of Articles 15, 20, 17, 16, 18 and 21 GDPR."""

    ACCESS = "access"
    PORTABILITY = "portability"
    ERASURE = "erasure"
    RECTIFICATION = "rectification"
    RESTRICTION = "restriction"
    OBJECTION = "objection"


class PrivacyRequestReceived(Event):
    NAME: ClassVar[str] = "privacy.request.received"

    request_id: str
    kind: PrivacyKind
    subject: str
    due_at: datetime


class PrivacyRequestStarted(Event):
    """For an erasure and a restriction: it was carried out in the same transaction."""

    NAME: ClassVar[str] = "privacy.request.started"

    request_id: str


class PrivacyRequestExtended(Event):
    NAME: ClassVar[str] = "privacy.request.extended"

    request_id: str
    due_at: datetime


class PrivacyRequestExported(Event):
    """Somebody took the subject's data away to hand it out."""

    NAME: ClassVar[str] = "privacy.request.exported"

    request_id: str


class PrivacyRequestLifted(Event):
    """The restriction that it had asked for is over."""

    NAME: ClassVar[str] = "privacy.request.lifted"

    request_id: str


class PrivacyRequestCompleted(Event):
    NAME: ClassVar[str] = "privacy.request.completed"

    request_id: str


class PrivacyRequestRejected(Event):
    NAME: ClassVar[str] = "privacy.request.rejected"

    request_id: str


class ProcessingRestricted(Event):
    """The user can neither log in nor have anything done; what is there is kept."""

    NAME: ClassVar[str] = "user.restricted"

    user_id: str


class RestrictionLifted(Event):
    NAME: ClassVar[str] = "user.restriction_lifted"

    user_id: str


class UserErased(Event):
    """Whose id it is cannot be told any more. `removed` counts rows, by table."""

    NAME: ClassVar[str] = "user.erased"

    user_id: str
    removed: dict[str, int]


class BreachRecorded(Event):
    """`notify_by` is when the authority has to know (Art. 33 GDPR)."""

    NAME: ClassVar[str] = "privacy.breach.recorded"

    breach_id: str
    discovered_at: datetime
    notify_by: datetime


class BreachUpdated(Event):
    NAME: ClassVar[str] = "privacy.breach.updated"

    breach_id: str
    authority_notified_at: datetime | None = None
    subjects_notified_at: datetime | None = None
    closed_at: datetime | None = None
