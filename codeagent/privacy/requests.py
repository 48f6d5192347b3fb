"""Requests of persons about their data: taken in, decided, and answered within their time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson

from codeagent import clock
from codeagent.cursors import format_time_cursor, page_of, parse_time_cursor
from codeagent.errors import Conflict, InvalidInput, NotFound
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import Author, Change, ControlPlane, check_repeat
from codeagent.identity.sessions import SessionPolicy
from codeagent.messages.envelope import Event
from codeagent.messages.ids import parse_typed_id, privacy_stream
from codeagent.messages.privacy_events import (
    PrivacyKind,
    PrivacyRequestCompleted,
    PrivacyRequestExported,
    PrivacyRequestExtended,
    PrivacyRequestLifted,
    PrivacyRequestReceived,
    PrivacyRequestRejected,
    PrivacyRequestStarted,
)
from codeagent.privacy.erasure import erase, left_in_log
from codeagent.privacy.holds import check_not_held
from codeagent.privacy.restriction import lift, restrict
from codeagent.subjects.keys import SubjectKeys
from codeagent.subjects.texts import open_texts, seal_text

PREFIX = "prv"
NONE_SUCH = "There is no such privacy request."
TEXTS = ("note", "reason", "extension")
EXPORTABLE = frozenset({PrivacyKind.ACCESS, PrivacyKind.PORTABILITY})


class PrivacyStatus(StrEnum):
    """Received, then at work, then ended one way or the other."""

    RECEIVED = "received"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    REJECTED = "rejected"


_FOLLOWING: Mapping[PrivacyStatus, frozenset[PrivacyStatus]] = {
    PrivacyStatus.RECEIVED: frozenset({PrivacyStatus.IN_PROGRESS, PrivacyStatus.REJECTED}),
    PrivacyStatus.IN_PROGRESS: frozenset({PrivacyStatus.COMPLETED, PrivacyStatus.REJECTED}),
    PrivacyStatus.COMPLETED: frozenset(),
    PrivacyStatus.REJECTED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class PrivacyRequest:
    """A request. `reason` is that of its rejection, `extension` why it takes longer than a month, `result` what an
    erasure or a restriction has done. `note` and these two are written about the subject, and go with them."""

    id: str
    tenant_id: str
    version: int
    kind: PrivacyKind
    subject_id: str
    note: str
    status: PrivacyStatus
    reason: str
    extension: str
    result: dict[str, Any]
    fingerprint: str
    created_by: str
    created_at: datetime
    due_at: datetime
    ended_at: datetime | None

    @property
    def restricts(self) -> bool:
        """Whether a restriction that it has brought holds."""
        return "restricted_at" in self.result and "lifted_at" not in self.result


@dataclass(frozen=True, slots=True)
class PrivacyOrder:
    """A request to take in. `id` is derived from the HTTP request, so that a repeat makes none."""

    id: str
    kind: PrivacyKind
    subject_id: str
    note: str
    fingerprint: str


class PrivacyRequests:
    """`database` works under the edge's role. A change that names an old version raises `VersionMismatch`, one that
    does not go with the request's status `Conflict` (`invalid_state_transition`)."""

    def __init__(self, database: Database, policy: SessionPolicy | None = None) -> None:
        self._database = database
        self._control = ControlPlane(database)
        self._policy = policy or SessionPolicy()

    async def receive(self, author: Author, order: PrivacyOrder) -> tuple[PrivacyRequest, bool]:
        """The request, due in a month, and whether it was taken in before. Raises `InvalidInput` for a subject that is
        no user of the tenant."""
        try:
            async with self._control.change(author) as change:
                if not await change.rows("SELECT FROM users WHERE id = $1", order.subject_id):
                    raise InvalidInput("There is no such user.", pointer="/subject", code="unknown_subject")
                place = text_place(order.id, "note")
                note = await seal_text(change.subjects, author.tenant_id, order.subject_id, order.note, place)
                row = await change.row(
                    """INSERT INTO privacy_requests (id, tenant_id, version, kind, subject_id, note, status,
                                                     fingerprint, created_by, created_at, due_at)
                       VALUES ($1, $2, 1, $3, $4, $5, 'received', $6, $7, $8,
                               $8::timestamptz + interval '1 month') RETURNING *""",
                    order.id,
                    author.tenant_id,
                    order.kind.value,
                    order.subject_id,
                    note,
                    order.fingerprint,
                    author.id,
                    clock.now(),
                )
                fact = PrivacyRequestReceived(
                    request_id=order.id, kind=order.kind, subject=order.subject_id, due_at=row["due_at"]
                )
                await change.record(privacy_stream(order.id), 1, fact)
        except Conflict:
            return await self._taken_before(author.tenant_id, order), True
        return await self._opened(row), False

    async def _taken_before(self, tenant_id: str, order: PrivacyOrder) -> PrivacyRequest:
        known = await self.find(tenant_id, order.id)
        if known.fingerprint:  # with its subject goes what it said
            check_repeat(known.fingerprint, order.fingerprint)
        return known

    async def _opened(self, row: Row) -> PrivacyRequest:
        [request] = await _requests(self._database.subjects, [row])
        return request

    async def find(self, tenant_id: str, request_id: str) -> PrivacyRequest:
        """Raises `NotFound`, also for another tenant's."""
        query = "SELECT * FROM privacy_requests WHERE id = $1"
        known = parse_typed_id(PREFIX, request_id) is not None
        rows = await self._database.fetch(query, request_id, tenant=tenant_id) if known else ()
        if not rows:
            raise NotFound(NONE_SUCH)
        return await self._opened(rows[0])

    async def page(
        self, tenant_id: str, *, subject_id: str | None, after: str | None, limit: int
    ) -> tuple[Sequence[PrivacyRequest], str | None]:
        """Requests, newest first, and the cursor of what follows. Raises `Rejected` (`malformed_cursor`)."""
        created_at, request_id = parse_time_cursor(PREFIX, after)
        rows = await self._database.fetch(
            """SELECT * FROM privacy_requests
               WHERE ($1::text IS NULL OR subject_id = $1)
                 AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3))
               ORDER BY created_at DESC, id DESC LIMIT $4""",
            subject_id,
            created_at,
            request_id,
            limit + 1,
            tenant=tenant_id,
        )
        found = await _requests(self._database.subjects, rows)
        return page_of(found, limit, lambda request: format_time_cursor(request.created_at, request.id))

    async def start(self, author: Author, request: PrivacyRequest) -> PrivacyRequest:
        """Sets to work. An erasure and a restriction are carried out here and now, or not at all. Raises
        `Conflict` (`legal_hold`) for the erasure of one who is held."""
        _check(request, PrivacyStatus.IN_PROGRESS)
        async with self._control.change(author) as change:
            result: dict[str, Any] = {}
            if request.kind is PrivacyKind.ERASURE:
                await check_not_held(change, author.tenant_id, request.subject_id)
                result = await erase(change, author.tenant_id, request.id, request.subject_id, self._policy)
            elif request.kind is PrivacyKind.RESTRICTION:
                result = await restrict(change, author.tenant_id, request.subject_id, self._policy)
            fact = PrivacyRequestStarted(request_id=request.id)
            return await _changed(change, request, fact, status="in_progress", result=orjson.dumps(result).decode())

    async def certificate(self, request: PrivacyRequest) -> str:
        """Raises `NotFound` for what is no erasure, `Conflict` (`erasure_in_progress`) until there is one."""
        query = "SELECT certificate FROM erasures WHERE subject_id = $1"
        is_erasure = request.kind is PrivacyKind.ERASURE
        rows = await self._database.fetch(query, request.subject_id, tenant=request.tenant_id) if is_erasure else ()
        if not rows:
            raise NotFound("There is no certificate: nothing was erased by this request.")
        if not rows[0]["certificate"]:
            raise Conflict("The erasure is still at work.", code="erasure_in_progress")
        return str(rows[0]["certificate"])

    async def extend(self, author: Author, request: PrivacyRequest, due_at: datetime, reason: str) -> PrivacyRequest:
        """Gives it more time, once, three months from its receipt at most (Art. 12(3))."""
        async with self._control.change(author) as change:
            statement = """SELECT $1 <= $2::timestamptz + interval '3 months' AS fits,
                                  $3 > $2::timestamptz + interval '1 month' AS extended"""
            [[fits, extended]] = await change.rows(statement, due_at, request.created_at, request.due_at)
            if request.ended_at is not None or extended:
                raise Conflict("It cannot be extended (any more).", code="invalid_state_transition")
            if due_at <= request.due_at:
                raise InvalidInput("It is due later than that already.", pointer="/due_at")
            if not fits:
                raise InvalidInput("A request is answered within three months.", pointer="/due_at")
            fact = PrivacyRequestExtended(request_id=request.id, due_at=due_at)
            extension = await _sealed(change, request, "extension", reason)
            return await _changed(change, request, fact, due_at=due_at, extension=extension)

    async def complete(self, author: Author, request: PrivacyRequest) -> PrivacyRequest:
        """Raises `Conflict` for an erasure that is still at work (`erasure_in_progress`), or as long as something of
        the subject is left that was never sealed (`content_remains`)."""
        _check(request, PrivacyStatus.COMPLETED)
        async with self._control.change(author) as change:
            if request.kind is PrivacyKind.ERASURE:
                await _check_completed(change, request.subject_id)
            if request.kind is PrivacyKind.ERASURE and await left_in_log(change, request.subject_id):
                raise Conflict("Content of the subject remains in the log.", code="content_remains")
            fact = PrivacyRequestCompleted(request_id=request.id)
            return await _changed(change, request, fact, status="completed", ended_at=clock.now())

    async def reject(self, author: Author, request: PrivacyRequest, reason: str) -> PrivacyRequest:
        """What has been erased by then stays so; a restriction is lifted. Raises `Conflict` (`erasure_in_progress`) for
        an erasure that is at work: it goes on."""
        _check(request, PrivacyStatus.REJECTED)
        async with self._control.change(author) as change:
            if request.kind is PrivacyKind.ERASURE:
                await _check_completed(change, request.subject_id)
            if request.restricts:
                await lift(change, request.subject_id)
            fact = PrivacyRequestRejected(request_id=request.id)
            sealed = await _sealed(change, request, "reason", reason)
            return await _changed(change, request, fact, status="rejected", reason=sealed, ended_at=clock.now())

    async def lift(self, author: Author, request: PrivacyRequest) -> PrivacyRequest:
        """Ends a restriction: the subject may log in again. Raises `Conflict` where there is none."""
        if not request.restricts:
            raise Conflict("It has restricted nobody.", code="invalid_state_transition")
        async with self._control.change(author) as change:
            await lift(change, request.subject_id)
            result = {**request.result, "lifted_at": clock.now().isoformat()}
            fact = PrivacyRequestLifted(request_id=request.id)
            return await _changed(change, request, fact, result=orjson.dumps(result).decode())

    async def exported(self, author: Author, request: PrivacyRequest) -> PrivacyRequest:
        """Writes down that the subject's data is about to be taken away."""
        if request.kind not in EXPORTABLE or request.status not in {PrivacyStatus.IN_PROGRESS, PrivacyStatus.COMPLETED}:
            detail = "There is an export of a request for access or portability that is in progress or completed."
            raise Conflict(detail, code="invalid_state_transition")
        async with self._control.change(author) as change:
            return await _changed(change, request, PrivacyRequestExported(request_id=request.id))


async def _check_completed(change: Change, subject_id: str) -> None:
    query = "SELECT FROM erasures WHERE subject_id = $1 AND completed_at IS NULL"
    if await change.rows(query, subject_id):
        raise Conflict("The erasure is still at work.", code="erasure_in_progress")


def _check(request: PrivacyRequest, wanted: PrivacyStatus) -> None:
    if wanted not in _FOLLOWING[request.status]:
        raise Conflict(f"The request is {request.status}.", code="invalid_state_transition")


async def _changed(change: Change, request: PrivacyRequest, fact: Event, **values: object) -> PrivacyRequest:
    """The row with new values, at the version after the one that was decided on, and its fact. Names are ours."""
    assigned = "".join(f", {name} = ${n}" for n, name in enumerate(values, 3))
    row = await change.row(
        f"UPDATE privacy_requests SET version = version + 1{assigned} "  # noqa: S608  constants
        "WHERE id = $1 AND version = $2 RETURNING *",
        request.id,
        request.version,
        *values.values(),
    )
    await change.record(privacy_stream(request.id), row["version"], fact)
    [changed] = await _requests(change.subjects, [row])
    return changed


async def _sealed(change: Change, request: PrivacyRequest, name: str, text: str) -> str:
    place = text_place(request.id, name)
    return await seal_text(change.subjects, request.tenant_id, request.subject_id, text, place)


def text_place(request_id: str, name: str) -> str:
    """Where one of the `TEXTS` of a request belongs, as it is sealed."""
    return f"privacy_requests/{request_id}/{name}"


async def open_request_texts(keys: SubjectKeys, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows with what was written in them; what was erased is empty."""
    sealed = {text_place(row["id"], name): row[name] for row in rows for name in TEXTS}
    texts = await open_texts(keys, sealed)
    return [{**row, **{name: texts[text_place(row["id"], name)] for name in TEXTS}} for row in rows]


async def _requests(keys: SubjectKeys, rows: Sequence[Row]) -> list[PrivacyRequest]:
    found = []
    for values in await open_request_texts(keys, rows):
        kind, status = PrivacyKind(values["kind"]), PrivacyStatus(values["status"])
        result = orjson.loads(values["result"])
        found.append(PrivacyRequest(**{**values, "kind": kind, "status": status, "result": result}))
    return found
