"""What a run asks people about: what its request says and what its agent demands, together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from codeagent.agent import tools
from codeagent.errors import InvalidInput
from codeagent.messages.values import ApprovalPolicy

_Tools = Literal["all_changing"] | tuple[str, ...]


def checked(policy: ApprovalPolicy) -> ApprovalPolicy:
    """The policy with its tools once each and in our own order, so that those that say the same are the same.

    Raises `InvalidInput` (`unsupported_tool`): a misspelt tool must not pass for one that nobody is asked about.
    """
    if policy.tools == "all_changing":
        return policy
    for place, tool in enumerate(policy.tools):
        if tool not in tools.SANDBOXED:
            detail = f"There is no tool {tool!r} to ask about. Tools: {', '.join(sorted(tools.SANDBOXED))}."
            raise InvalidInput(detail, code="unsupported_tool", pointer=f"/approvals/tools/{place}")
    return policy.model_copy(update={"tools": _ordered(policy.tools)})


def joined(asked: ApprovalPolicy | None, demanded: ApprovalPolicy | None) -> ApprovalPolicy | None:
    """Every tool that either names, and the shorter time to answer: a run has no fewer approvals than its agent
    demands. None where nobody is asked."""
    if asked is None or demanded is None:
        return asked or demanded
    return ApprovalPolicy(
        tools=_together(asked.tools, demanded.tools),
        expires_seconds=min(asked.expires_seconds, demanded.expires_seconds),
    )


def _together(asked: _Tools, demanded: _Tools) -> _Tools:
    names = frozenset().union(*(tools.CHANGING if said == "all_changing" else said for said in (asked, demanded)))
    # Stays open to tools that workers may have in the future, unless it has to name one that only reads.
    if "all_changing" in {asked, demanded} and names == tools.CHANGING:
        return "all_changing"
    return _ordered(names)


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    known = frozenset(names)
    return tuple(name for name in tools.NAMES if name in known)
