"""What a run and its agent ask people about, together: never less than either says."""

from __future__ import annotations

import pytest

from codeagent.agent.tools import CHANGING
from codeagent.agent_registry.agent import Content
from codeagent.agent_registry.approvals import checked, joined
from codeagent.errors import InvalidInput
from codeagent.messages.values import ApprovalPolicy

SHELL = ApprovalPolicy(tools=("shell",), expires_seconds=60)
WRITE = ApprovalPolicy(tools=("write_file",), expires_seconds=3_600)
SEARCH = ApprovalPolicy(tools=("search",), expires_seconds=60)
CHANGES = ApprovalPolicy(tools="all_changing", expires_seconds=600)


def test_without_anybody_who_asks_nobody_is_asked() -> None:
    assert joined(None, None) is None


@pytest.mark.parametrize("policy", [SHELL, CHANGES])
def test_one_that_says_nothing_takes_nothing_away(policy: ApprovalPolicy) -> None:
    assert joined(policy, None) == joined(None, policy) == joined(policy, policy) == policy


def test_together_they_ask_about_every_tool_of_either_and_wait_for_the_shorter_time() -> None:
    for pair in ((SHELL, WRITE), (WRITE, SHELL)):
        assert joined(*pair) == ApprovalPolicy(tools=("shell", "write_file"), expires_seconds=60)


def test_all_that_change_files_hold_every_tool_that_does_and_none_that_only_reads() -> None:
    assert joined(SHELL, CHANGES) == joined(CHANGES, SHELL) == ApprovalPolicy(tools="all_changing", expires_seconds=60)
    with_reading = joined(CHANGES, SEARCH)
    assert with_reading is not None
    assert set(with_reading.tools) == CHANGING | {"search"}


def test_an_agents_own_tools_that_may_change_something_are_among_all_that_do() -> None:
    own = frozenset({"mcp__docs__file"})
    assert joined(SHELL, CHANGES, own) == ApprovalPolicy(tools="all_changing", expires_seconds=60)
    with_reading = joined(CHANGES, SEARCH, own)
    assert with_reading is not None
    assert set(with_reading.tools) == CHANGING | {"search", "mcp__docs__file"}


def test_policies_that_say_the_same_are_the_same() -> None:
    assert checked(ApprovalPolicy(tools=("search", "shell", "search"))) == checked(
        ApprovalPolicy(tools=("shell", "search"))
    )


@pytest.mark.parametrize("tool", ["shel", "submit", ""])
def test_a_tool_that_nobody_can_be_asked_about_is_refused(tool: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        checked(ApprovalPolicy(tools=("shell", tool)))
    assert (refused.value.code, refused.value.pointer) == ("unsupported_tool", "/approvals/tools/1")


def test_approvals_are_a_part_of_what_a_versions_digest_is_over() -> None:
    contents = [Content(), Content(approvals=SHELL), Content(approvals=CHANGES)]
    assert len({content.digest for content in contents}) == 3
