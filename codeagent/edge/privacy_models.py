"""Bodies of requests and answers about personal data."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field

from codeagent.edge.models import NO_BOOLEAN, Strict
from codeagent.edge.moments import Moment
from codeagent.messages.privacy_events import PrivacyKind
from codeagent.privacy.breaches import Breach
from codeagent.privacy.holds import Hold
from codeagent.privacy.message_fields import MESSAGE_FIELDS
from codeagent.privacy.personal_data import HOLDINGS
from codeagent.privacy.requests import PrivacyRequest, PrivacyStatus

NO_NULL = r"^[^\x00]*$"


Count = Annotated[int, Field(ge=0, le=2_000_000_000), NO_BOOLEAN]


class PrivacyBody(Strict):
    """A person's request, as somebody of the tenant takes it in."""

    kind: PrivacyKind = Field(description="The right that is exercised, Articles 15 to 21 GDPR.")
    subject: str = Field(max_length=100, pattern=r"^[A-Za-z0-9_]+$", description="The user's id.")
    note: str = Field(default="", max_length=4_000, pattern=NO_NULL, description="How it came, what exactly is asked.")

    def fingerprint(self) -> str:
        """The same for requests that say the same."""
        return sha256(self.model_dump_json().encode()).hexdigest()


class PrivacyPatch(Strict):
    """A next status, or more time. `reason` is required for a rejection and an extension."""

    status: Literal["in_progress", "completed", "rejected"] | None = None
    due_at: Moment | None = Field(default=None, description="Extends it, once, to three months at most.")
    reason: str = Field(default="", max_length=4_000, pattern=NO_NULL)


class PrivacyModel(BaseModel):
    """A request. `result` tells of an erasure what was `removed`, what content is `remaining` and what is `kept`, of a
    restriction since when it holds."""

    id: str
    kind: PrivacyKind
    subject: str
    note: str
    status: PrivacyStatus
    overdue: bool
    reason: str
    extension: str
    result: dict[str, Any]
    version: int
    created_by: str
    created_at: datetime
    due_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, request: PrivacyRequest, now: datetime) -> Self:
        names = ("id", "kind", "note", "status", "reason", "extension", "result", "version", "created_by")
        times = ("created_at", "due_at", "ended_at")
        return cls(
            subject=request.subject_id,
            overdue=(request.ended_at or now) > request.due_at,
            **{name: getattr(request, name) for name in (*names, *times)},
        )


class PrivacyPage(BaseModel):
    items: list[PrivacyModel]
    next_cursor: str | None


class HoldModel(BaseModel):
    """Content of the user stays until it is lifted."""

    subject: str
    created_by: str
    created_at: datetime

    @classmethod
    def of(cls, hold: Hold) -> Self:
        return cls(subject=hold.subject_id, created_by=hold.created_by, created_at=hold.created_at)


class HoldPage(BaseModel):
    items: list[HoldModel]
    next_cursor: str | None


CategoryName = Annotated[str, Field(min_length=1, max_length=200, pattern=NO_NULL)]


class BreachBody(Strict):
    """A breach of personal data."""

    summary: str = Field(min_length=1, max_length=4_000, pattern=NO_NULL, description="What happened.")
    discovered_at: Moment = Field(description="When it became known: the clock runs from here.")
    categories: tuple[CategoryName, ...] = Field(default=(), max_length=20, description="Kinds of data and of persons.")
    subjects_affected: Count | None = Field(default=None, description="As far as it is known.")
    measures: str = Field(default="", max_length=4_000, pattern=NO_NULL, description="What is done about it.")

    def fingerprint(self) -> str:
        """The same for requests that say the same."""
        return sha256(self.model_dump_json().encode()).hexdigest()


class BreachPatch(Strict):
    """What has become known or was done; what is left out stays."""

    summary: str | None = Field(default=None, min_length=1, max_length=4_000, pattern=NO_NULL)
    categories: tuple[CategoryName, ...] | None = Field(default=None, max_length=20)
    subjects_affected: Count | None = None
    measures: str | None = Field(default=None, max_length=4_000, pattern=NO_NULL)
    authority_notified_at: Moment | None = None
    subjects_notified_at: Moment | None = None
    closed_at: Moment | None = Field(default=None, description="Nothing is changed any more.")

    def values(self) -> dict[str, object]:
        """What was given, by column."""
        given = self.model_dump(exclude_none=True)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


class BreachModel(BaseModel):
    """A breach. `overdue`: the authority was told after `notify_by`, or has not been told and it is past. One that was
    closed without is not: whoever closed it has found that nobody had to be told."""

    id: str
    summary: str
    measures: str
    categories: list[str]
    subjects_affected: int | None
    discovered_at: datetime
    notify_by: datetime
    overdue: bool
    authority_notified_at: datetime | None
    subjects_notified_at: datetime | None
    closed_at: datetime | None
    version: int
    created_by: str
    created_at: datetime

    @classmethod
    def of(cls, breach: Breach) -> Self:
        return cls(overdue=breach.overdue, **{k: v for k, v in asdict(breach).items() if k != "fingerprint"})


class BreachPage(BaseModel):
    items: list[BreachModel]
    next_cursor: str | None


class ProcessingModel(BaseModel):
    """One activity: what is kept where, what for, and for how long."""

    where: str
    purpose: str
    categories: list[str]
    retention: str
    on_erasure: str


class FieldModel(BaseModel):
    """A field of a fact that may hold what a person has written."""

    message: str
    field: str
    purpose: str
    category: str
    retention: str


class RecordsModel(BaseModel):
    """The record of processing activities, as far as the software can tell it: who is responsible, and to whom data is
    handed on, the operator adds."""

    activities: list[ProcessingModel]
    message_fields: list[FieldModel]

    @classmethod
    def of_list(cls) -> Self:
        return cls(
            activities=[
                ProcessingModel(
                    where=holding.table,
                    purpose=holding.purpose,
                    categories=list(holding.categories),
                    retention=holding.retention,
                    on_erasure=holding.erasure,
                )
                for holding in HOLDINGS
            ],
            message_fields=[FieldModel(**asdict(field)) for field in MESSAGE_FIELDS],
        )
