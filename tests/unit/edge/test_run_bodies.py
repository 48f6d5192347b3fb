"""Bodies of runs: what they come down to for Idempotency-Keys."""

from __future__ import annotations

from typing import Any

from codeagent.edge.models import RunBody

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
