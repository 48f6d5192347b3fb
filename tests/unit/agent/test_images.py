"""A run's commands all see the image that it was submitted with."""

from __future__ import annotations

from codeagent.messages import commands
from codeagent.messages.values import Outcome
from tests.unit.agent.scenario import Scenario, call


def asked(run: Scenario) -> str | None:
    command = run.open_effect.command
    assert isinstance(command, commands.ExecuteOperation)
    return command.image


def test_every_operation_names_it() -> None:
    run = Scenario(image="go")
    run.submit()
    assert asked(run) == "go"
    run.sandbox(base="sha256:" + "a" * 64)
    run.model(call("shell", command="go test"))
    assert asked(run) == "go"
    run.sandbox()
    run.model(call("submit", summary="done"))
    assert asked(run) == "go"


def test_a_worker_that_lacks_it_in_the_middle_ends_the_run_by_that_name() -> None:
    run = Scenario(image="go")
    run.prepared()
    run.model(call("shell", command="go test"))
    run.sandbox(
        Outcome.FAILED, reason="image_unsupported", error_reason="image_unsupported", error="none", retryable=False
    )
    assert run.state.ending is not None
    assert run.state.ending.reason == "image_unsupported"
