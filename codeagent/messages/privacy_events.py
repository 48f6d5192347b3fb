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


class SubjectErased(Event):
    """Nothing that belonged to the subject can be read any more, here or in any copy of the log: the key `key_id` is
    gone since `shredded_at`. It is said before the sealed content is taken out of the events, so that nobody has to
    wonder where that is."""

    NAME: ClassVar[str] = "privacy.subject.erased"

    request_id: str
    subject: str
    key_id: str
    closed_at: datetime
    shredded_at: datetime


class ErasureCertified(Event):
    """All of it is done. `counts` says what was taken away, by its name; `certificate_digest` is that of the signed
    certificate, as it is handed out."""

    NAME: ClassVar[str] = "privacy.erasure.certified"

    request_id: str
    subject: str
    counts: dict[str, int]
    certificate_digest: str


class HoldPlaced(Event):
    """Content of the subject stays, whatever a policy or a request for erasure says."""

    NAME: ClassVar[str] = "privacy.hold.placed"

    subject: str


class HoldLifted(Event):
    NAME: ClassVar[str] = "privacy.hold.lifted"

    subject: str


class ContentRetired(Event):
    """The sealed content of these runs was taken out of the log in the same transaction, out of so many `events`: they
    had ended longer ago than `days`."""

    NAME: ClassVar[str] = "retention.content_retired"

    run_ids: tuple[str, ...]
    days: float
    events: int


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
