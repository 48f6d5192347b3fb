"""Which ends of runs are held against a version: its own, and nobody else's."""

from __future__ import annotations

import pytest

from codeagent.messages import events
from codeagent.projections.outcomes import RunOutcome, outcome_of


@pytest.mark.parametrize(
    "reason",
    [
        "max_turns_exceeded",
        "max_tokens_exceeded",
        "budget_exceeded",
        "deadline_exceeded",
        "sandbox_limit_exceeded",
        "verification_failed",
        "content_filtered",
        "one_that_is_not_known_here",
    ],
)
def test_a_run_that_used_up_what_it_had_or_did_not_pass_is_the_versions_failure(reason: str) -> None:
    assert outcome_of(events.RunFailed(status_reason=reason)) is RunOutcome.FAILED


@pytest.mark.parametrize(
    "reason",
    [
        "worker_lost",
        "queue_timeout",
        "provider_error",
        "sandbox_error",
        "quota_exceeded",
        "source_not_found",
        "source_unavailable",
        "approval_expired",
        "egress_refused",
        "egress_unsupported",
        "image_unsupported",
        "dependencies_failed",
        "registry_unreachable",
        "lock_file_unusable",
    ],
)
def test_what_the_platform_or_the_tenant_is_at_fault_for_is_excused(reason: str) -> None:
    assert outcome_of(events.RunFailed(status_reason=reason)) is RunOutcome.EXCUSED


def test_a_cancel_is_told_apart_and_a_refused_run_says_nothing() -> None:
    assert outcome_of(events.RunCompleted()) is RunOutcome.SUCCEEDED
    assert outcome_of(events.RunCanceled(status_reason="canceled_by_user")) is RunOutcome.CANCELED
    assert outcome_of(events.RunRejected()) is RunOutcome.EXCUSED
