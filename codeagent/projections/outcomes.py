"""What the end of a run says about the version of its agent: whether it counts, and for which side."""

from __future__ import annotations

from enum import StrEnum

from codeagent.messages import events


class RunOutcome(StrEnum):
    """`failed` is the version's own; `canceled` is a person's wish; `excused` is whatever else neither the version nor
    its model can help: the platform, a source or dependencies that cannot be had, a budget or quota of the tenant, an
    approval that nobody has answered."""

    OPEN = "open"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXCUSED = "excused"


COUNTED = (RunOutcome.SUCCEEDED, RunOutcome.FAILED)
"""What a success rate is taken of, and percentiles."""
_EXCUSED = frozenset(
    {
        "worker_lost",
        "queue_timeout",
        "sandbox_error",
        "internal_error",
        "erased",
        "budget_exhausted",
        "approval_expired",
        "egress_refused",
        "egress_unsupported",
    }
)
_EXCUSED_KINDS = ("provider_", "source_", "quota_", "image_", "dependencies_", "registry_", "lock_file_")
"""How reasons begin that are excused as well."""


def outcome_of(ending: events.RunEnded) -> RunOutcome:
    """Of a reason that nobody has named here the version is at fault: better asked about than passed over."""
    match ending:
        case events.RunCompleted():
            return RunOutcome.SUCCEEDED
        case events.RunCanceled():
            return RunOutcome.CANCELED
        case events.RunFailed() if not is_excused(ending.status_reason):
            return RunOutcome.FAILED
        case _:
            return RunOutcome.EXCUSED


def is_excused(reason: str) -> bool:
    return reason in _EXCUSED or reason.startswith(_EXCUSED_KINDS)
