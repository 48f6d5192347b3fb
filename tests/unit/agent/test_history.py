"""What a session remembers for its next run: the newest of what was said, within bounds."""

from __future__ import annotations

import pytest

from codeagent.agent.history import HISTORY_BYTES, extended
from codeagent.agent.prompt import EARLIER, Transcript, build
from codeagent.messages.commands import SubmitRun
from codeagent.messages.conversation import UserMessage
from codeagent.messages.values import ArchiveSource, Files, PrepareFiles, RunLimits, RunStatus, Turn
from tests.unit.agent.scenario import DIGEST, RUN, Scenario


def turn(task: str, answer: str = "done", status: RunStatus = RunStatus.COMPLETED) -> Turn:
    return Turn(task=task, answer=answer, status=status)


def size(turns: tuple[Turn, ...]) -> int:
    return sum(len(each.task.encode()) + len(each.answer.encode()) for each in turns)


def test_turns_are_kept_oldest_first_until_they_are_too_long_together() -> None:
    turns: tuple[Turn, ...] = ()
    for number in range(100):
        turns = extended(turns, turn(f"{number} " + "x" * 990))
    assert turns[-1].task.startswith("99 ")
    assert [int(each.task.split()[0]) for each in turns] == list(range(100 - len(turns), 100))
    assert HISTORY_BYTES - 2_000 < size(turns) <= HISTORY_BYTES


@pytest.mark.parametrize(("letter", "sign"), [("ü", "日"), ('"', "\x01"), ("a", "b")])
def test_the_newest_turn_always_fits_as_an_excerpt(letter: str, sign: str) -> None:
    """However JSON has to spell it: it travels in a command and stands in the log."""
    [kept] = extended((turn("old"),), turn(letter * 32_000, sign * 100_000))[-1:]
    assert kept.task.startswith(letter * 1_000)
    assert kept.answer.endswith("[...]")
    assert len(kept.model_dump_json()) <= HISTORY_BYTES


def submitted(*history: Turn, continues: Files | None = None) -> Scenario:
    scenario = Scenario()
    scenario.when(
        SubmitRun(
            run_id=RUN,
            task="and now this",
            source=ArchiveSource(digest=DIGEST),
            agent="coder",
            model="test/model",
            limits=RunLimits(),
            fingerprint="f",
            session_id="ses_x",
            continues=continues,
            history=history or None,
        )
    )
    return scenario


def told(scenario: Scenario, window_tokens: int = 100_000) -> list[str]:
    transcript = Transcript()
    for event in scenario.events:
        transcript.add(event)
    messages = build(transcript, window_tokens)
    assert all(isinstance(message, UserMessage) for message in messages[1:])
    return [message.text for message in messages[1:]]  # type: ignore[union-attr]


def test_the_model_is_told_what_was_said_before_and_then_the_task() -> None:
    before, task = told(submitted(turn("rename it", "renamed"), turn("test it", "", RunStatus.CANCELED)))
    assert before == (
        f"{EARLIER}\n\nTask: rename it\nOutcome (completed): renamed\n\nTask: test it\nOutcome (canceled): -"
    )
    assert task == "and now this"


def test_a_run_of_no_session_is_told_its_task_alone() -> None:
    assert told(submitted()) == ["and now this"]


def test_a_small_window_has_room_for_the_newest_only() -> None:
    before, _ = told(submitted(turn("a" * 2_000), turn("newest")), window_tokens=1_000)
    assert "newest" in before
    assert "aaa" not in before
    assert told(submitted(turn("a" * 2_000)), window_tokens=1_000) == ["and now this"]


def test_a_run_that_goes_on_is_given_the_files_that_are_there() -> None:
    files = Files(base=DIGEST, checkpoint="sha256:" + "c" * 64)
    scenario = submitted(continues=files)
    operation = scenario.open_effect.command.operation  # type: ignore[attr-defined]
    assert isinstance(operation, PrepareFiles)
    assert operation.continues == files
    scenario.sandbox(base=files.base, checkpoint=files.checkpoint)
    assert (scenario.state.base, scenario.state.checkpoint) == (files.base, files.checkpoint)


def test_a_run_that_fails_to_begin_leaves_no_patch() -> None:
    scenario = submitted(continues=Files(base=DIGEST))
    assert scenario.state.base is None
