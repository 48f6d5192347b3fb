"""A run whose project says how its dependencies are installed: once, before it thinks, and then carried along."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from codeagent.agent.draft import Decision
from codeagent.agent.state import RunState, evolve
from codeagent.messages import commands, events
from codeagent.messages.catalog import decode_data, encode_data
from codeagent.messages.values import Dependencies, InstallDependencies, Outcome, RunLimits, RunStatus
from tests.unit.agent.scenario import DIGEST, Scenario, call, names

PIP = Dependencies(install="pip install -r requirements.txt", lock_files=("requirements.txt",))
INSTALLED = "sha256:" + "d" * 64


def asked(run: Scenario) -> commands.ExecuteOperation:
    command = run.open_effect.command
    assert isinstance(command, commands.ExecuteOperation)
    return command


def prepared(limits: RunLimits | None = None) -> Scenario:
    run = Scenario(limits or RunLimits(), dependencies=PIP)
    run.prepared()
    return run


def test_they_are_installed_after_the_files_are_there_and_before_the_model_is_asked() -> None:
    run = prepared()
    assert [event.NAME for event in run.events[-2:]] == ["run.step.completed", "run.step.started"]
    command = asked(run)
    assert command.operation == InstallDependencies(dependencies=PIP)
    assert (command.base, command.dependencies) == (DIGEST, None)
    decision = run.sandbox(dependencies=INSTALLED)
    assert names(decision) == ["run.step.completed", "run.step.started"]
    assert run.open_effect.kind == "provider"
    assert run.state.step == 1, "steps of the model are counted as in any run"


def test_later_operations_name_what_was_installed() -> None:
    run = prepared()
    run.sandbox(dependencies=INSTALLED)
    run.model(call("shell", "a", command="one"), call("shell", "b", command="two"))
    assert asked(run).dependencies == INSTALLED
    run.sandbox(checkpoint="sha256:" + "b" * 64)
    assert asked(run).dependencies == INSTALLED


def test_a_command_that_fails_to_install_fails_the_run_in_its_own_words() -> None:
    run = prepared()
    run.sandbox(reason="exit", exit_code=1, output="No matching distribution found for nonsuch")
    end = run.sandbox()
    assert names(end)[-1] == "run.failed"
    assert run.state.status_reason == "dependencies_failed"
    failed = end.events[-1]
    assert isinstance(failed, events.RunFailed)
    assert failed.message.splitlines() == [
        "The dependencies could not be installed (exit code 1).",
        "No matching distribution found for nonsuch",
    ]


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        ("lock_file_unusable", "dependencies_failed"),
        ("registry_unreachable", "dependencies_failed"),
        ("dependencies_too_large", "dependencies_failed"),
        ("dependencies_unsupported", "dependencies_unsupported"),
        ("egress_unsupported", "egress_unsupported"),
        ("quota_exceeded", "quota_exceeded"),
        ("stuck", "sandbox_error"),
    ],
)
def test_what_cannot_be_installed_is_told_apart_from_a_sandbox_that_fails(why: str, reason: str) -> None:
    run = prepared()
    run.sandbox(Outcome.FAILED, error="why", error_reason=why)
    run.sandbox()
    assert (run.state.status, run.state.status_reason) == (RunStatus.FAILED, reason)


def test_a_cancel_or_a_deadline_while_they_are_installed_ends_the_run() -> None:
    canceled = prepared()
    assert canceled.cancel().cancel_effects
    assert names(canceled.sandbox(Outcome.CANCELED)) == ["run.canceled"]
    late = prepared(RunLimits(deadline_seconds=60))
    late.later(60)
    assert late.timer("deadline").cancel_effects
    late.sandbox(Outcome.CANCELED)
    late.sandbox()
    assert late.state.status_reason == "deadline_exceeded"


def test_nothing_is_installed_for_a_run_that_is_past_its_deadline() -> None:
    run = Scenario(RunLimits(deadline_seconds=60), dependencies=PIP)
    run.submit()
    run.now += timedelta(seconds=60)
    run.sandbox(base=DIGEST, checkpoint="")
    assert asked(run).operation.kind == "collect"


def folded(run: Scenario) -> RunState:
    state = RunState()
    for event in run.events:
        stored = decode_data(event.NAME, event.VERSION, encode_data(event))
        assert isinstance(stored, type(event))
        state = evolve(state, stored)
    return state


def test_a_worker_that_takes_the_run_over_knows_what_was_installed_from_the_log() -> None:
    run = prepared()
    run.sandbox(dependencies=INSTALLED)
    assert folded(run) == run.state
    assert folded(run).dependencies == INSTALLED


def test_a_run_without_is_stored_and_goes_on_as_it_always_did() -> None:
    run = Scenario()
    decision: Decision = run.prepared()
    assert [effect.kind for effect in decision.effects] == ["provider"]
    run.model(call("shell", command="ls"))
    told = [json.loads(encode_data(event)) for event in run.events]
    told += [json.loads(encode_data(effect.command)) for effect in run.effects]
    assert not [data for data in told if "dependencies" in data]
