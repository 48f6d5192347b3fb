"""What a run's commands may use together: counted from the facts, and the run ends before the next one."""

from __future__ import annotations

import pytest

from codeagent.messages import commands, events
from codeagent.messages.sandbox_limits import CommandUse, SandboxLimits
from codeagent.messages.values import CallTool, RunLimits
from tests.unit.agent.scenario import Scenario, call, names

USED = CommandUse(commands=1, wall_ms=2_000, cpu_ms=1_500, output_bytes=3_000)


def at_work(**limits: int) -> Scenario:
    run = Scenario(RunLimits(sandbox=SandboxLimits(**limits)))
    run.prepared()
    return run


@pytest.mark.parametrize(
    "limits",
    [{"total_commands": 2}, {"total_wall_seconds": 4}, {"total_cpu_seconds": 3}, {"total_output_bytes": 6_000}],
    ids=lambda limits: next(iter(limits)),
)
def test_a_used_up_total_ends_the_run_before_its_next_command_and_keeps_its_patch(limits: dict[str, int]) -> None:
    run = at_work(**limits)
    for _ in range(2):
        run.model(call("shell", command="make"))
        assert run.open_effect.kind == "sandbox"
        run.sandbox(used=USED)
    run.model(call("search", pattern="x"))
    end = run.collected()
    failed = end.events[-1]
    assert isinstance(failed, events.RunFailed)
    assert failed.status_reason == "sandbox_limit_exceeded"
    assert str(next(iter(limits.values()))) in failed.message
    assert failed.patch is not None


def test_one_message_with_many_commands_gets_no_more_of_them_than_are_left() -> None:
    run = at_work(total_commands=1)
    run.model(call("shell", "c1", command="a"), call("shell", "c2", command="b"))
    decision = run.sandbox(used=USED)
    assert names(decision) == ["tool.call.completed", "run.step.started"]
    assert run.state.ending is not None
    assert run.state.ending.reason == "sandbox_limit_exceeded"


def test_reading_writing_and_submitting_go_on_when_no_command_is_left() -> None:
    run = at_work(total_commands=1)
    run.model(call("shell", command="make"))
    run.sandbox(used=USED)
    run.model(call("write_file", path="a", content="b"))
    assert run.open_effect.kind == "sandbox"
    run.sandbox()
    run.model(call("submit", summary="done"))
    assert names(run.collected())[-1] == "run.completed"


def test_a_command_is_given_no_more_time_than_is_left_of_all() -> None:
    run = at_work(total_wall_seconds=100)
    run.model(call("shell", command="make"))
    run.sandbox(used=CommandUse(commands=1, wall_ms=70_500))
    run.model(call("shell", command="make"))
    command = run.open_effect.command
    assert isinstance(command, commands.ExecuteOperation)
    assert isinstance(command.operation, CallTool)
    assert command.operation.timeout_seconds == 30
    assert command.limits == run.limits.sandbox, "the worker learns of the limits of each"
