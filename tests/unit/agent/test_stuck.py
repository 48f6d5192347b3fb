"""A run that goes round in circles: its model is told first, and if it goes on, the run ends as `stuck`."""

from __future__ import annotations

import pytest

from codeagent.agent.progress import MOST_KNOWN
from codeagent.agent.prompt import Transcript, build
from codeagent.agent.stuck import FAILING, IDLE, ROUNDS
from codeagent.messages import events
from codeagent.messages.conversation import ToolCall, ToolMessage, UserMessage
from codeagent.messages.loop_events import RunNudged
from codeagent.messages.values import RunLimits, RunStatus
from tests.unit.agent.scenario import Scenario, call


def at_work(**limits: int) -> Scenario:
    run = Scenario(RunLimits(**limits))
    run.prepared()
    return run


def turn(run: Scenario, command: str, output: str = "same", *, checkpoint: str = "", reason: str = "ok") -> None:
    """One reply with one command, and what came of it."""
    number = run.state.model_calls
    run.model(call("shell", f"c{number}", command=command))
    run.sandbox(output=output, checkpoint=checkpoint, reason=reason)


def nudges(run: Scenario) -> list[RunNudged]:
    return [event for event in run.events if isinstance(event, RunNudged)]


def is_ending(run: Scenario) -> bool:
    """Whether the patch is being collected, to end the run as stuck."""
    ending = run.state.ending
    return ending is not None and (ending.status, ending.reason) == (RunStatus.FAILED, "stuck")


@pytest.mark.parametrize("period", [1, 2, 3])
def test_equal_rounds_are_told_to_the_model_once_and_then_end_the_run(period: int) -> None:
    run = at_work()
    rounds = ROUNDS[period]
    for number in range(period * rounds - 1):
        turn(run, f"command {number % period}")
    assert nudges(run) == []
    turn(run, f"command {period - 1}")
    told = nudges(run)
    assert [(one.pattern, one.replies, one.period) for one in told] == [("repeated_calls", period * rounds, period)]
    for number in range(period * rounds - 1):
        turn(run, f"command {number % period}")
    assert not is_ending(run)
    turn(run, f"command {period - 1}")
    assert is_ending(run)
    assert nudges(run) == told


def test_the_patch_of_a_stuck_run_is_kept_and_its_end_says_what_was_seen() -> None:
    run = at_work()
    for _ in range(2 * ROUNDS[1]):
        turn(run, "ls")
    end = run.collected().events[-1]
    assert isinstance(end, events.RunFailed)
    assert end.status_reason == "stuck"
    assert "The last 8 replies were the same calls with the same results (tools: shell)" in end.message
    assert end.patch is not None


def test_a_model_that_does_something_else_when_told_goes_on() -> None:
    run = at_work()
    for _ in range(ROUNDS[1]):
        turn(run, "ls")
    turn(run, "make", output="built")
    for _ in range(ROUNDS[1] - 1):
        turn(run, "ls")
    assert not is_ending(run)
    assert len(nudges(run)) == 1


def test_a_model_that_was_told_long_ago_is_told_again_before_its_run_ends() -> None:
    run = at_work()
    for command in ("ls", "pwd"):
        for _ in range(ROUNDS[1]):
            turn(run, command)
        turn(run, f"make {command}", output="built")
    assert not is_ending(run)
    assert [one.replies for one in nudges(run)] == [ROUNDS[1], ROUNDS[1]]


def test_many_equal_calls_of_one_reply_are_one_repeat_and_told_before_they_end_anything() -> None:
    run = at_work()
    for number in range(ROUNDS[1]):
        run.model(*(call("shell", f"c{number}_{each}", command="ls") for each in range(5)))
        for _ in range(5):
            run.sandbox(output="same")
    assert [one.replies for one in nudges(run)] == [ROUNDS[1]]
    assert not is_ending(run)


def test_waiting_for_something_slow_is_no_repeat_while_its_output_grows() -> None:
    run = at_work(max_steps=100)
    for number in range(3 * IDLE):
        turn(run, "tail test.log", output="." * number)
    assert nudges(run) == []


def test_reading_a_file_again_after_each_edit_is_no_repeat() -> None:
    run = at_work(max_steps=100)
    for number in range(IDLE):
        turn(run, f"sed -i s/a/{number}/ a.py", output="", checkpoint=f"sha256:{number:064x}")
        turn(run, "cat a.py", output="unchanged in this part", checkpoint=f"sha256:{number:064x}")
    assert nudges(run) == []


def test_the_same_command_that_changes_files_each_time_is_no_repeat() -> None:
    run = at_work(max_steps=100)
    for number in range(2 * IDLE):
        turn(run, "make next", checkpoint=f"sha256:{number:064x}")
    assert nudges(run) == []


def test_calls_that_all_fail_are_told_and_then_end_the_run() -> None:
    run = at_work()
    for number in range(FAILING):
        run.model(ToolCall(id=f"c{number}", name=f"no_such_tool_{number}"))
    assert [(one.pattern, one.replies) for one in nudges(run)] == [("failing_calls", FAILING)]
    for number in range(FAILING):
        turn(run, f"wrong {number}", output=f"no such thing: {number}", reason="exit")
    assert is_ending(run)


def test_one_call_that_succeeds_is_no_error_loop() -> None:
    run = at_work()
    for number in range(3 * FAILING):
        turn(run, f"try {number}", output=f"{'x' * number}", reason="exit" if number % FAILING else "ok")
    assert nudges(run) == []


def test_failing_tests_between_edits_are_no_error_loop() -> None:
    run = at_work(max_steps=100)
    for number in range(3 * FAILING):
        checkpoint = f"sha256:{number:064x}"
        turn(run, f"sed -i s/a/{number}/ a.py && pytest", output="1 failed", checkpoint=checkpoint, reason="exit")
    assert nudges(run) == []


def test_a_search_that_finds_nothing_has_not_failed() -> None:
    run = at_work(max_steps=100)
    for number in range(3 * FAILING):
        run.model(call("search", f"c{number}", pattern=f"word {number}"))
        run.sandbox(output="no match", reason="ok", exit_code=1)
    assert nudges(run) == []


def test_going_to_and_fro_between_known_files_with_other_timings_is_no_progress() -> None:
    run = at_work(max_steps=100)
    seen = 0
    while not nudges(run):
        seen += 1
        checkpoint = f"sha256:{seen % 2:064x}"
        turn(run, f"git checkout {seen % 2}", output="", checkpoint=checkpoint)
        turn(run, "pytest", output=f"1 failed in 0.{seen}s", checkpoint=checkpoint)
        assert seen <= IDLE
    assert nudges(run)[0].pattern == "no_progress"
    for number in range(IDLE):
        turn(run, "pytest", output=f"1 failed in 1.{number}s", checkpoint=checkpoint)
    assert is_ending(run)


def test_the_nudge_reaches_the_model_after_the_answers_that_led_to_it() -> None:
    run = at_work()
    for _ in range(ROUNDS[1]):
        turn(run, "ls")
    transcript = Transcript()
    for event in run.events:
        transcript.add(event)
    *_, answer, told = build(transcript, 100_000)
    assert isinstance(answer, ToolMessage)
    assert told == UserMessage(text=nudges(run)[0].message)


def test_what_is_known_of_a_run_does_not_grow_with_its_length() -> None:
    run = at_work(max_steps=1000)
    for number in range(200):
        turn(run, f"command {number}", output=f"{'x' * number}", checkpoint=f"sha256:{number:064x}")
    assert len(run.state.progress.known) == MOST_KNOWN
    assert len(run.state.progress.newest) == 3
