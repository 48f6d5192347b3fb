"""How a run ends that does not end by a limit: what it is told by, and in which words."""

from __future__ import annotations

from codeagent.agent.state import RunState
from codeagent.messages import results
from codeagent.messages.conversation import FinishReason
from codeagent.messages.events import Ending
from codeagent.messages.values import Outcome, RunStatus

DEADLINE = Ending(
    status=RunStatus.FAILED, reason="deadline_exceeded", message="The run did not finish before its deadline."
)
UNANSWERED = Ending(
    status=RunStatus.FAILED, reason="approval_expired", message="Nobody answered the run's request in time."
)
QUOTA_EXCEEDED = "quota_exceeded"
"""The tenant has used what it may of sandboxes today."""
_OWN_REASONS = frozenset({QUOTA_EXCEEDED, "egress_refused", "egress_unsupported"})
"""Nothing has failed: somebody's rules, or what the installation is able to, were against it."""
_SOURCE_REASONS = {
    "url_refused": "source_refused",
    "address_refused": "source_refused",
    "archive_refused": "source_refused",
    "not_found": "source_not_found",
    "credential_refused": "source_credential_refused",
    "credential_unavailable": "source_credential_unavailable",
    "too_large": "source_too_large",
    "fetch_failed": "source_unavailable",
}


def spoken(state: RunState) -> Ending:
    """A message without a tool call is the model's last word."""
    if state.finish_reason is FinishReason.CONTENT_FILTER:
        return Ending(status=RunStatus.FAILED, reason="content_filtered", message="The provider withheld the reply.")
    return Ending(status=RunStatus.COMPLETED, reason="", message=state.last_text)


def overdue(state: RunState) -> Ending:
    """Of a run that has gone on for too long after its deadline. What nobody has judged has not passed."""
    is_judged = state.pending is not None and state.pending.name == "verify"
    return DEADLINE if is_judged or state.ending is None else state.ending


def canceled(state: RunState) -> Ending:
    reason = state.cancel.reason if state.cancel is not None else ""
    return Ending(status=RunStatus.CANCELED, reason="canceled_by_user", message=reason)


def sandbox_reason(result: results.SandboxResult, *, preparing: bool) -> str:
    """A source that cannot be had is the source's fault, not the sandbox's."""
    if result.outcome is Outcome.WORKER_LOST:
        return "worker_lost"
    if result.error_reason in _OWN_REASONS:
        return result.error_reason
    return _SOURCE_REASONS.get(result.error_reason, "sandbox_error") if preparing else "sandbox_error"
