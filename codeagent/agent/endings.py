"""How a run ends that does not end by a limit: what it is told by, and in which words."""

from __future__ import annotations

from codeagent.agent.state import RunState
from codeagent.messages import results
from codeagent.messages.conversation import FinishReason
from codeagent.messages.events import Ending, StepName
from codeagent.messages.values import Outcome, RunStatus

DEADLINE = Ending(
    status=RunStatus.FAILED, reason="deadline_exceeded", message="The run did not finish before its deadline."
)
UNANSWERED = Ending(
    status=RunStatus.FAILED, reason="approval_expired", message="Nobody answered the run's request in time."
)
NOT_COLLECTED = "The patch was not collected: "
"""What a run is told by that had done its work, and has no patch to show for it. The reason follows."""
QUOTA_EXCEEDED = "quota_exceeded"
"""The tenant has used what it may of sandboxes today."""
_OWN_REASONS = frozenset(
    {QUOTA_EXCEEDED, "egress_refused", "egress_unsupported", "image_unsupported", "dependencies_unsupported"}
)
"""Nothing has failed: somebody's rules, or what the installation is able to, were against it."""
DEPENDENCIES_FAILED = "dependencies_failed"
_INSTALL_REASONS = frozenset({"lock_file_unusable", "registry_unreachable", "dependencies_too_large"})
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
    return Ending(status=RunStatus.COMPLETED, reason="", message=state.last_text[:2_000])


def overdue(state: RunState) -> Ending:
    """Of a run that has gone on for too long after its deadline. What nobody has judged has not passed."""
    is_judged = state.pending is not None and state.pending.name == "verify"
    return DEADLINE if is_judged or state.ending is None else state.ending


def canceled(state: RunState) -> Ending:
    """The reason is told where it was given, and not again: it belongs to whoever gave it, the run to somebody else."""
    cancel, parent = state.cancel, None if state.submitted is None else state.submitted.parent
    by_parent = cancel is not None and parent is not None and cancel.principal == parent.run_id
    told = "canceled_by_parent" if by_parent else "canceled_by_user"
    return Ending(status=RunStatus.CANCELED, reason=told)


def not_installed(result: results.SandboxResult) -> Ending:
    """The command that installs was carried out, and brought nothing that could be used."""
    how = result.reason if result.exit_code is None else f"exit code {result.exit_code}"
    message = f"The dependencies could not be installed ({how}).\n{result.output}"
    return Ending(status=RunStatus.FAILED, reason=DEPENDENCIES_FAILED, message=message.rstrip())


def sandbox_reason(result: results.SandboxResult, step: StepName) -> str:
    """What cannot be had is the fault of its source, not of the sandbox."""
    if result.outcome is Outcome.WORKER_LOST:
        return "worker_lost"
    if result.error_reason in _OWN_REASONS:
        return result.error_reason
    if step == "install" and result.error_reason in _INSTALL_REASONS:
        return DEPENDENCIES_FAILED
    return _SOURCE_REASONS.get(result.error_reason, "sandbox_error") if step == "prepare" else "sandbox_error"


def outcome(reason: str) -> Outcome:
    """How what was asked for ended, by the reason that the run was told."""
    known = {"deadline_exceeded": Outcome.CANCELED, "canceled": Outcome.CANCELED, "worker_lost": Outcome.WORKER_LOST}
    return known.get(reason, Outcome.FAILED)


def error_reason(reason: str) -> str:
    """What went wrong in a sandbox, of a run that ended with `reason`: the first error that is told so."""
    if reason == DEPENDENCIES_FAILED:
        return min(_INSTALL_REASONS)
    return next((error for error, told in _SOURCE_REASONS.items() if told == reason), reason)
