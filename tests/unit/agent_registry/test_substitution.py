"""A run's command as another version would have given it: what the request said stays, what its version said goes."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from codeagent.agent import mcp
from codeagent.agent_registry.agent import AgentVersion, Content, VersionState, run_limits
from codeagent.agent_registry.approvals import joined
from codeagent.agent_registry.mcp_tools import pinned, with_read_only
from codeagent.agent_registry.substitution import Substitute, substituted
from codeagent.messages.commands import SubmitRun
from codeagent.messages.mcp import McpTool, McpTools
from codeagent.messages.sandbox_limits import SandboxLimits
from codeagent.messages.values import AgentDefinition, ApprovalPolicy, ArchiveSource, LimitsAsked, RunLimits

DEFAULT = "builtin/repair"
OWN = Content(
    "Be brief.",
    "one/model",
    limits=LimitsAsked(max_steps=20, sandbox=SandboxLimits(processes=50)),
    approvals=ApprovalPolicy(tools=("shell",), expires_seconds=600),
)
OTHER = Content(
    "Be long.",
    "two/model",
    ("read_file", "submit"),
    LimitsAsked(max_steps=10, max_cost_usd=Decimal("0.50")),
    ApprovalPolicy(tools=("edit_file",), expires_seconds=900),
    ("pypi.org:443",),
)


def given(
    own: Content, asked: LimitsAsked | None = None, approvals: ApprovalPolicy | None = None, model: str | None = None
) -> SubmitRun:
    """As the edge gives a run that asks for this, by a version that says `own`."""
    return SubmitRun(
        run_id="run_1",
        task="t",
        source=ArchiveSource(digest="sha256:" + "a" * 64),
        agent="coder",
        model=model or own.model or DEFAULT,
        limits=run_limits(asked or LimitsAsked(), own.limits),
        approvals=joined(approvals, own.approvals),
        fingerprint="f",
    )


def offering(*names: str) -> McpTools:
    return pinned("docs", [McpTool(name=name, description="", input_schema={"type": "object"}) for name in names])


def by_other(command: SubmitRun, own: Content = OWN, other: Content = OTHER, name: str = "reviewer") -> SubmitRun:
    version = AgentVersion("agt_other", 3, VersionState.ACTIVE, other, other.digest)
    return substituted(command, own, Substitute(name, version, DEFAULT))


def test_a_run_that_asks_for_nothing_has_all_of_the_other_version() -> None:
    command = by_other(given(OWN))
    assert (command.agent, command.agent_version, command.model) == ("reviewer", 3, "two/model")
    assert command.limits == RunLimits(max_steps=10, max_cost_usd=Decimal("0.50"))
    assert command.approvals == OTHER.approvals
    definition = command.definition
    assert definition is not None
    assert (definition.id, definition.digest, definition.instructions) == ("agt_other", OTHER.digest, "Be long.")
    assert (definition.tools, definition.egress) == (OTHER.tools, OTHER.egress)


def test_the_run_that_was_asked_for_is_otherwise_the_same() -> None:
    command = given(OWN).model_copy(update={"task": "another", "project_id": "prj_1", "session_id": "ses_1"})
    changed = {"agent", "agent_version", "definition", "model", "limits", "approvals"}
    assert by_other(command).model_dump(exclude=changed) == command.model_dump(exclude=changed)


def test_a_model_that_the_request_named_stays() -> None:
    assert by_other(given(OWN, model="my/model")).model == "my/model"


@pytest.mark.parametrize(("own", "other", "model"), [(None, "two/model", "two/model"), ("one/model", None, DEFAULT)])
def test_a_version_without_a_model_has_the_default(own: str | None, other: str | None, model: str) -> None:
    before = replace(OWN, model=own)
    assert by_other(given(before), before, replace(OTHER, model=other)).model == model


@pytest.mark.parametrize(
    ("asked", "expected"),
    [((), ("three/model",)), (("my/model",), ("my/model",)), (("own/spare",), ("three/model",))],
)
def test_models_that_stand_in_are_the_other_versions_unless_the_request_named_some(
    asked: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    own, other = replace(OWN, fallbacks=("own/spare",)), replace(OTHER, fallbacks=("two/model", "three/model"))
    command = given(own).model_copy(update={"fallbacks": asked or None})
    assert by_other(command, own, other).fallbacks == expected
    assert by_other(command.model_copy(update={"model": "my/model"}), own, other).fallbacks == (asked or None)


def test_limits_that_the_request_named_stay_as_far_as_the_version_lets_them() -> None:
    asked = LimitsAsked(max_steps=15, max_cost_usd=Decimal("0.10"), deadline_seconds=60)
    limits = by_other(given(OWN, asked)).limits
    assert (limits.max_steps, limits.max_cost_usd, limits.deadline_seconds) == (10, Decimal("0.10"), 60)
    more = replace(OTHER, limits=LimitsAsked(max_steps=18))
    assert by_other(given(OWN, asked), other=more).limits.max_steps == 15


@pytest.mark.parametrize(
    ("asked", "other", "expected"),
    [
        (None, None, None),
        (None, {"processes": 80}, {"processes": 80}),
        ({"processes": 30}, {"processes": 80}, {"processes": 30}),
        ({"processes": 30}, {"processes": 20}, {"processes": 20}),
        ({"memory_bytes": 1 << 26}, {"open_files": 64}, {"memory_bytes": 1 << 26, "open_files": 64}),
    ],
)
def test_limits_of_the_sandbox_are_taken_one_by_one(
    asked: dict[str, int] | None, other: dict[str, int] | None, expected: dict[str, int] | None
) -> None:
    def limits(said: dict[str, int] | None) -> LimitsAsked:
        return LimitsAsked(sandbox=None if said is None else SandboxLimits(**said))

    command = by_other(given(OWN, limits(asked)), other=Content(limits=limits(other)))
    assert command.limits.sandbox == (None if expected is None else SandboxLimits(**expected))


def policy(*tools: str, seconds: int = 600) -> ApprovalPolicy:
    return ApprovalPolicy(tools=tools, expires_seconds=seconds)


@pytest.mark.parametrize(
    ("asked", "other", "expected"),
    [
        (None, None, None),
        (None, policy("edit_file"), policy("edit_file")),
        (policy("edit_file"), None, policy("edit_file")),
        (policy("edit_file"), policy("shell", seconds=900), policy("shell", "edit_file")),
        (
            ApprovalPolicy(tools="all_changing", expires_seconds=600),
            None,
            ApprovalPolicy(tools="all_changing", expires_seconds=600),
        ),
        # Fewer seconds alone may have been asked for with or without the tool: nobody is asked less by a guess.
        (policy("shell", seconds=60), None, policy("shell", seconds=60)),
    ],
)
def test_approvals_that_the_request_asked_for_stay(
    asked: ApprovalPolicy | None, other: ApprovalPolicy | None, expected: ApprovalPolicy | None
) -> None:
    command: Any = by_other(given(OWN, approvals=asked), other=replace(OTHER, approvals=other))
    assert command.approvals == expected


def test_all_that_changes_files_counts_as_the_tools_that_do() -> None:
    every = replace(OWN, approvals=ApprovalPolicy(tools="all_changing", expires_seconds=600))
    command = by_other(given(every, approvals=policy("search")), every, replace(OTHER, approvals=None))
    assert command.approvals == policy("search")


def test_tools_of_servers_are_the_other_versions_and_change_something_unless_the_run_knew_better() -> None:
    asked = policy("mcp__docs__search")
    every = replace(OWN, mcp=(offering("search", "file"),), approvals=ApprovalPolicy(tools="all_changing"))
    other = replace(OTHER, mcp=(offering("search", "tag"),), approvals=ApprovalPolicy(tools="all_changing"))
    definition = AgentDefinition(
        id="a",
        digest=every.digest,
        instructions="",
        tools=every.tools,
        mcp=with_read_only(every.mcp, {"docs": frozenset({"search"})}),
    )
    run = given(every).model_copy(
        update={"definition": definition, "approvals": joined(asked, every.approvals, mcp.changing(definition))}
    )
    command = by_other(run, every, other)
    assert mcp.names(command.definition) == ("mcp__docs__search", "mcp__docs__tag")
    assert mcp.changing(command.definition) == {"mcp__docs__tag"}
    assert command.approvals is not None
    assert command.approvals.tools == ("shell", "write_file", "edit_file", "mcp__docs__search", "mcp__docs__tag")


def test_a_built_in_agent_gives_no_definition() -> None:
    command = by_other(given(OWN), other=Content(), name="coder")
    assert command.definition is None
    assert command.limits == RunLimits()
