"""An operator's defaults and maxima: others may lower what they bound, and nobody raises it."""

from __future__ import annotations

import pytest

from codeagent.errors import InvalidInput
from codeagent.messages.sandbox_limits import SandboxLimits
from codeagent.messages.values import LimitsAsked, RunLimits
from codeagent.sandboxes.limits import BUILT_IN, LimitPolicy
from codeagent.sandboxes.protocol import Limits

GIB = 1 << 30


def test_where_nobody_says_anything_commands_have_the_ordinary_limits() -> None:
    policy = LimitPolicy()
    assert policy.of_command(None) == Limits()
    assert policy.of_run(RunLimits()).sandbox is None


@pytest.mark.parametrize("name", sorted(BUILT_IN.said()))
def test_every_limit_of_a_command_can_be_lowered_and_none_raised(name: str) -> None:
    policy, ordinary = LimitPolicy(), BUILT_IN.said()[name]
    lower, higher = (SandboxLimits(**{name: value}) for value in (ordinary // 2, ordinary * 2))
    policy.check(LimitsAsked(sandbox=lower))
    assert policy.of_command(lower) != Limits()
    with pytest.raises(InvalidInput) as refused:
        policy.check(LimitsAsked(sandbox=higher))
    assert (refused.value.code, refused.value.pointer) == ("limit_exceeded", f"/limits/sandbox/{name}")
    assert policy.of_command(higher) == Limits(), "whoever asked, and wherever"


def test_a_maximum_lets_runs_ask_for_more_than_the_default_up_to_it() -> None:
    policy = LimitPolicy(SandboxLimits(memory_bytes=GIB), SandboxLimits(memory_bytes=4 * GIB), command_seconds=60)
    policy.check(LimitsAsked(sandbox=SandboxLimits(memory_bytes=4 * GIB), command_timeout_seconds=60))
    with pytest.raises(InvalidInput):
        policy.check(LimitsAsked(command_timeout_seconds=61))
    run = policy.of_run(RunLimits(sandbox=SandboxLimits(memory_bytes=8 * GIB)))
    assert run.sandbox == SandboxLimits(memory_bytes=4 * GIB), "the operator has lowered it since it was asked for"
    assert run.command_timeout_seconds == 60
    assert policy.of_run(RunLimits()).sandbox == SandboxLimits(memory_bytes=GIB)


def test_totals_of_a_run_are_unbounded_unless_the_operator_says() -> None:
    LimitPolicy().check(LimitsAsked(sandbox=SandboxLimits(total_commands=100_000)))
    with pytest.raises(InvalidInput):
        LimitPolicy(SandboxLimits(total_commands=10)).check(LimitsAsked(sandbox=SandboxLimits(total_commands=11)))


def test_what_is_kept_of_an_output_is_never_more_than_may_be_printed() -> None:
    limits = LimitPolicy().of_command(SandboxLimits(output_bytes=2_048))
    assert (limits.output_hard_bytes, limits.output_kept_bytes) == (2_048, 2_048)
