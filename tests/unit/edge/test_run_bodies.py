"""Bodies of runs: what they come down to for Idempotency-Keys."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from codeagent.edge.key_models import RotateBody
from codeagent.edge.models import ApprovalsBody, LimitsBody, RunBody
from codeagent.edge.privacy_models import BreachPatch
from codeagent.edge.project_models import QuotasBody
from codeagent.edge.webhook_models import RotateSecretBody

DIGEST = "sha256:" + "a" * 64
BODY: dict[str, Any] = {"task": "t", "source": {"kind": "archive", "digest": DIGEST}}
PROJECT = "prj_" + "0" * 26


def fingerprint(**fields: Any) -> str:
    return RunBody.model_validate({**BODY, **fields}).fingerprint()


def test_a_run_without_a_project_has_the_fingerprint_that_the_log_remembers() -> None:
    """As it was made before there were projects: a repeat across the upgrade is the same run."""
    assert fingerprint() == "9a861c351a1806ed901cfb926cee50e9deba3784e9a9c85f0dc578b9a9a835a8"


def test_bodies_that_say_something_else_differ() -> None:
    said = [
        {},
        {"task": "u"},
        {"model": "a/b"},
        {"limits": {"max_steps": 3}},
        {"project_id": PROJECT},
        {"approvals": {"tools": ["shell"]}},
    ]
    assert len({fingerprint(**fields) for fields in said}) == len(said)
    assert fingerprint() == fingerprint(agent="coder", limits={})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (LimitsBody, {"max_steps": True}),
        (LimitsBody, {"deadline_seconds": True}),
        (ApprovalsBody, {"tools": ["shell"], "expires_seconds": True}),
        (RotateBody, {"overlap_seconds": False}),
        (RotateSecretBody, {"overlap_seconds": False}),
        (QuotasBody, {"max_runs_per_day": True}),
        (BreachPatch, {"subjects_affected": False}),
    ],
)
def test_true_is_not_one(body: type[BaseModel], said: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        body.model_validate(said)
    assert [error["type"] for error in refused.value.errors()] == ["int_type"]
