"""The runs that are recorded: what their models say, what their commands do, and what people do about them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from codeagent.messages.conversation import AssistantMessage, FinishReason, ToolCall, Usage
from codeagent.messages.values import (
    AgentDefinition,
    ApprovalDecision,
    ApprovalPolicy,
    Digest,
    GitSource,
    RunStatus,
    Turn,
)
from codeagent.messages.verification import Verification
from codeagent.providers.protocol import ModelReply, ProviderError
from codeagent.providers.scripted import After, Answer
from codeagent.sandboxes.protocol import ExecSpec, SandboxFailure
from codeagent.sandboxes.scripted import Scripted
from tests.integration.workers.simulated.world import World
from tests.integration.workers.system import Bench

FILES = {"cart.py": b"def total(prices):\n    return sum(prices) + 1\n", "test_cart.py": b"from cart import total\n"}
HOURS = 3600.0


def call(tool: str, number: int = 1, **arguments: object) -> ToolCall:
    return ToolCall(id=f"call_{number}", name=tool, arguments=json.dumps(arguments))


def says(*calls: ToolCall, text: str = "") -> ModelReply:
    """A reply that costs something."""
    reason = FinishReason.TOOL_CALLS if calls else FinishReason.STOP
    usage = Usage(input_tokens=900, output_tokens=60, cache_read_tokens=300)
    message = AssistantMessage(text=text, tool_calls=calls)
    return ModelReply(message, usage, Decimal("0.0021"), reason, "scripted-1")


def bash(spec: ExecSpec, files: Mapping[str, bytes]) -> Scripted:
    """A shell for which the tests pass once the fault is gone."""
    command = spec.argv[-1]
    if command == "explode":
        raise SandboxFailure("the machine is gone", reason="sandbox_error", retryable=False)
    if command == "pytest":
        repaired = b"+ 1" not in files["cart.py"]
        return Scripted(0, b"1 passed\n") if repaired else Scripted(1, b"1 failed\n")
    return Scripted(127, b"", b"bash: command not found\n")


def definition(*tools: str, egress: tuple[str, ...] | None = None) -> AgentDefinition:
    digest: Digest = "sha256:" + "d" * 64
    names = tools or ("shell", "read_file", "write_file", "edit_file", "search", "submit")
    return AgentDefinition(id="agt_golden", digest=digest, instructions="Be brief.", tools=names, egress=egress)


Person = Callable[[World, Bench], Awaitable[object]]
"""What somebody does about a run while nothing goes on by itself."""


async def allow(world: World, run: Bench) -> None:
    await world.answer(run, ApprovalDecision.ALLOW_ALWAYS, "ada")


async def reject(world: World, run: Bench) -> None:
    await world.answer(run, ApprovalDecision.REJECT, "ada", "Not before noon.")


async def cancel(world: World, run: Bench) -> None:
    await world.cancel(run)


async def look_on(_world: World, _run: Bench) -> None:
    """Nobody does anything."""


@dataclass(frozen=True)
class Story:
    """One run. `submitted` are fields of its command; one that `continues` begins with the repaired files. `brings` are
    files beside the usual ones, `window` is its model's, in tokens."""

    answers: tuple[Answer, ...]
    limits: Mapping[str, Any] = field(default_factory=dict)
    submitted: Mapping[str, Any] = field(default_factory=dict)
    person: Person = look_on
    continues: bool = False
    brings: Mapping[str, bytes] = field(default_factory=dict)
    window: int = 128_000


LOOK, TEST = call("read_file", path="cart.py"), call("shell", command="pytest")
REPAIR = call("edit_file", path="cart.py", old=" + 1", new="")
DONE = says(call("submit", summary="The total was one too high."))
ASKS = ApprovalPolicy(tools=("shell", "edit_file"), expires_seconds=60)
JUDGED = Verification(command="pytest", protected=("test_*.py",), timeout_seconds=60)

STORIES: dict[str, Story] = {
    "success": Story((says(LOOK, text="Looking."), says(REPAIR), says(TEST), DONE)),
    "several-calls": Story(
        (says(LOOK, call("search", 2, pattern="total")), says(REPAIR, call("shell", 2, command="pytest")), DONE)
    ),
    "tool-errors": Story(
        (
            says(ToolCall(id="call_1", name="shell", arguments="{not json")),
            says(call("shell", cmd="ls")),
            says(call("read_file", path="missing.py")),
            says(call("edit_file", path="cart.py", old="nowhere", new="")),
            says(TEST),
            says(call("shell", command="ls")),
            DONE,
        )
    ),
    "unknown-tool": Story(
        (says(call("browse", url="https://example.org")), says(call("write_file", path="a", content="b")), DONE),
        submitted={"definition": definition("read_file", "submit")},
    ),
    "approval-allowed": Story(
        (says(TEST), says(REPAIR), says(TEST), DONE), submitted={"approvals": ASKS}, person=allow
    ),
    "approval-rejected": Story((says(TEST), says(LOOK), DONE), submitted={"approvals": ASKS}, person=reject),
    "approval-expired": Story((says(TEST), DONE), submitted={"approvals": ASKS}),
    "limit-exceeded": Story((says(LOOK), says(LOOK), says(LOOK), DONE), limits={"max_steps": 2}),
    "canceled": Story((says(REPAIR), After(HOURS, DONE)), person=cancel),
    "deadline": Story((says(REPAIR), After(HOURS, DONE)), limits={"deadline_seconds": 30}),
    "verification-failed": Story((says(LOOK), DONE), submitted={"verification": JUDGED}),
    "verification-passed": Story((says(REPAIR), DONE), submitted={"verification": JUDGED}),
    "session": Story(
        (says(TEST), says(text="It is all there already.")),
        submitted={
            "session_id": "ses_00000000000000000000000001",
            "history": (Turn(task="Make the tests pass.", answer="Done.", status=RunStatus.COMPLETED),),
        },
        continues=True,
    ),
    "guided": Story((says(LOOK), DONE), brings={"AGENTS.md": b"Run pytest before you submit.\n"}),
    "compacted": Story(
        (*(says(call("read_file", path="build.log")) for _ in range(3)), DONE),
        brings={"build.log": b"built another part of it\n" * 180},
        window=12_000,
    ),
    "stuck": Story((says(LOOK),) * 8),
    "model-refused": Story((says(LOOK), ProviderError("no such model", reason="not_found", retryable=False))),
    "sandbox-lost": Story((says(call("shell", command="explode")), DONE)),
    "source-refused": Story((DONE,), submitted={"source": GitSource(url="https://localhost/shop.git", ref="main")}),
}
