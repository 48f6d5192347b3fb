"""Golden recordings: whatever was decided once is decided again, from the same messages at the same moments."""

from __future__ import annotations

import pytest

from codeagent.agent.decide import decide
from codeagent.agent.recording import steps_of
from codeagent.agent.state import RunState
from codeagent.messages.catalog import encode_data
from codeagent.messages.envelope import Event
from tests.golden import NAMES, recording


def told(events: tuple[Event, ...]) -> list[str]:
    return [f"{event.NAME} {encode_data(event).decode()}" for event in events]


@pytest.mark.parametrize("name", NAMES)
def test_every_decision_of_a_recorded_run_is_made_again(name: str) -> None:
    state = RunState()
    for step in steps_of(recording(name)):
        assert state.version == step.version
        decision = decide(state, step.message, step.at)
        assert told(decision.events) == told(step.events), f"on {step.message.envelope.name} after {step.version}"
        state = decision.state
    assert state.status.terminal
    assert state.version == len(recording(name))


def test_the_recordings_tell_of_every_way_to_end_and_of_every_message() -> None:
    runs = [recording(name) for name in NAMES]
    reasons = {run[-1].data.status_reason for run in runs}  # type: ignore[attr-defined]  # every last event has one
    assert reasons >= {
        "",
        "approval_expired",
        "canceled_by_user",
        "deadline_exceeded",
        "max_turns_exceeded",
        "provider_error",
        "sandbox_error",
        "source_refused",
        "verification_failed",
    }
    taken = {step.message.envelope.name for run in runs for step in steps_of(run)}
    assert taken == {
        "run.submit",
        "run.cancel",
        "run.answer",
        "run.timer.fire",
        "provider.result",
        "sandbox.result",
    }
