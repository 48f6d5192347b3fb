"""The error tree. Each class states what the system does next.

    CodeAgentError
    ├── Rejected       not allowed or not valid: a 4xx at the edge, a fact in the log, never retried
    │   ├── NotFound       404, also for another tenant's id
    │   ├── VersionMismatch  412, the client decided on what is no longer so
    │   └── InvalidInput   422, names the offending field
    ├── Conflict       the stream moved: read again, decide again
    ├── Exhausted      too much at once or in a time: 429, come back after `retry_after` seconds
    ├── Unavailable    something outside failed: retry with back-off, then 503 or a dead letter
    │   └── OutcomeUnknown   a send or commit whose end was not seen: look before repeating
    └── Unreadable     the record cannot be understood: dead letter at once

Anything outside the tree is a bug: logged with its trace, dead-lettered, 500 at the edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class CodeAgentError(Exception):
    """Base of every error raised on purpose. `code` is stable API; `detail` is safe to show a user."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    retry_after: int | None = None
    """Seconds after which it may be tried again, where that is known."""

    def __init__(self, detail: str = "", *, code: str | None = None, status: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if code is not None:
            self.code = code  # type: ignore[misc]  # an instance may be more precise than its class
        if status is not None:
            self.status = status  # type: ignore[misc]


class Rejected(CodeAgentError):
    code = "rejected"
    status = 400


class NotFound(Rejected):
    code = "not_found"
    status = 404


class VersionMismatch(Rejected):
    code = "version_mismatch"
    status = 412


class InvalidInput(Rejected):
    """A field that cannot be accepted. `pointer` is an RFC 6901 pointer into the request body."""

    code = "validation_failed"
    status = 422

    def __init__(self, detail: str, *, pointer: str = "", code: str | None = None, status: int | None = None) -> None:
        super().__init__(detail, code=code, status=status)
        self.pointer = pointer


class Conflict(CodeAgentError):
    code = "conflict"
    status = 409
    retryable = True


class Exhausted(CodeAgentError):
    """A limit is reached. `policies` names those that were, `headers` tells more of them."""

    code = "quota_exceeded"
    status = 429
    retryable = True

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        retry_after: int = 1,
        policies: tuple[str, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail, code=code)
        self.retry_after = retry_after
        self.policies = policies
        self.headers = dict(headers or {})


class Unavailable(CodeAgentError):
    code = "unavailable"
    status = 503
    retryable = True

    def __init__(
        self, detail: str = "", *, code: str | None = None, status: int | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(detail, code=code, status=status)
        self.retry_after = retry_after


class OutcomeUnknown(Unavailable):
    code = "outcome_unknown"


class Unreadable(CodeAgentError):
    code = "unreadable"
    status = 400
