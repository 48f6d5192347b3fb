"""Turns what a vendor's SDK raises into a `ProviderError` whose detail never quotes a body, a prompt or a key."""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass

import httpx2
from pydantic_ai import exceptions as vendor

from codeagent.providers.keys import KeyUnusable
from codeagent.providers.protocol import ProviderError

_log = logging.getLogger(__name__)
_SAFE_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_FILTER_CODES = frozenset({"content_filter", "content_policy_violation", "cyber_policy", "safety"})


class EndlessAnswer(Exception):
    """More bytes than any whole answer takes have arrived: the server is broken or hostile."""


SENTENCES = {
    "rate_limited": "limits how often it may be called",
    "overloaded": "is overloaded or unavailable",
    "timeout": "did not answer in time",
    "connection": "could not be reached, or dropped the connection",
    "authentication": "was not given an API key it accepts",
    "permission": "does not allow this API key to make the call",
    "not_found": "does not know the model",
    "context_overflow": "cannot take a conversation this long",
    "invalid_request": "refused the request as invalid",
    "content_filtered": "refused the content",
    "bad_response": "answered with something that is not a whole answer",
    "internal": "failed",
}


@dataclass(frozen=True, slots=True)
class _Verdict:
    reason: str
    retryable: bool


# The first match wins: subclasses stand before their bases.
_VERDICTS: tuple[tuple[type[Exception], _Verdict], ...] = (
    (vendor.ModelContextWindowExceededError, _Verdict("context_overflow", False)),
    (vendor.ModelQuotaExceededError, _Verdict("rate_limited", False)),
    (vendor.ModelRateLimitError, _Verdict("rate_limited", True)),
    (vendor.ModelUnavailableError, _Verdict("overloaded", True)),
    (vendor.ModelServerError, _Verdict("internal", True)),
    (vendor.ModelTimeoutError, _Verdict("timeout", True)),
    (vendor.ModelRequestTimeout, _Verdict("timeout", True)),
    (vendor.ModelConnectionError, _Verdict("connection", True)),
    (vendor.ModelAuthenticationError, _Verdict("authentication", False)),
    (vendor.ModelNotFoundError, _Verdict("not_found", False)),
    (vendor.ModelRequestRejectedError, _Verdict("invalid_request", False)),
    (vendor.ContentFilterError, _Verdict("content_filtered", False)),
    (vendor.ModelHTTPError, _Verdict("invalid_request", False)),
    (vendor.ModelAPIError, _Verdict("bad_response", True)),
    (vendor.UnexpectedModelBehavior, _Verdict("bad_response", True)),
    (EndlessAnswer, _Verdict("bad_response", False)),
    (vendor.UserError, _Verdict("internal", False)),
    (TimeoutError, _Verdict("timeout", True)),
    (httpx2.TimeoutException, _Verdict("timeout", True)),
    (httpx2.HTTPError, _Verdict("connection", True)),
)
_BY_STATUS = {
    403: _Verdict("permission", False),
    408: _Verdict("timeout", True),
    409: _Verdict("overloaded", True),
    413: _Verdict("context_overflow", False),
    425: _Verdict("overloaded", True),
}


def failure(reason: str, provider: str, *, retryable: bool, note: str = "") -> ProviderError:
    """An error of ours about a provider. `note` is shown to users."""
    detail = f"The model provider {provider!r} {SENTENCES[reason]}{f' ({note})' if note else ''}."
    return ProviderError(detail, reason=reason, retryable=retryable)


def from_vendor(error: Exception, provider: str) -> ProviderError:
    """The `ProviderError` for whatever a call raised, without its words."""
    if isinstance(error, ProviderError):
        return error
    if isinstance(error, KeyUnusable):
        return failure("authentication", provider, retryable=error.retryable, note="there is no usable API key")
    verdict = _verdict(error)
    if verdict is None:
        # An answer of another shape than the SDK knows ends in any exception there is, often with the answer in it.
        _log.warning("an answer cannot be read: %s at %s", type(error).__name__, _place(error))
        return failure("bad_response", provider, retryable=True, note=type(error).__name__)
    retryable = verdict.retryable
    if isinstance(error, vendor.ModelHTTPError) and error.provider_retry_hint is False:
        retryable = False
    mapped = failure(verdict.reason, provider, retryable=retryable, note=_note(error))
    mapped.retry_after_seconds = _seconds(getattr(error, "retry_after", None))
    return mapped


def _verdict(error: Exception) -> _Verdict | None:
    if isinstance(error, vendor.ModelContextWindowExceededError):
        return _Verdict("context_overflow", False)
    if isinstance(error, vendor.ModelHTTPError):
        if {error.provider_error_code, error.provider_error_type} & _FILTER_CODES:
            return _Verdict("content_filtered", False)
        if error.status_code in _BY_STATUS:
            return _BY_STATUS[error.status_code]
    return next((verdict for kind, verdict in _VERDICTS if isinstance(error, kind)), None)


def _place(error: Exception) -> str:
    """Where an exception was raised, which is all of it that may be told."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    return "?" if step is None else f"{step.tb_frame.f_globals.get('__name__')}:{step.tb_lineno}"


def _note(error: Exception) -> str:
    """Status and vendor code, and nothing else that came over the wire."""
    status = getattr(error, "status_code", None)
    codes = (getattr(error, "provider_error_code", None), getattr(error, "provider_error_type", None))
    code = next((code for code in codes if isinstance(code, str) and _SAFE_CODE.fullmatch(code)), None)
    return ", ".join(filter(None, (f"HTTP {status}" if status else "", code or "")))


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and value >= 0 else None
