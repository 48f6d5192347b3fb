"""What a run asks people about: what its request says and what its agent demands, together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from codeagent.agent import tools
from codeagent.errors import InvalidInput
from codeagent.messages.values import ApprovalPolicy

_Tools = Literal["all_changing"] | tuple[str, ...]


def checked(policy: ApprovalPolicy, others: Iterable[str] = ()) -> ApprovalPolicy:
    """The policy with its tools once each and in our own order, so that those that say the same are the same. `others`
    are tools that the agent has besides our own.

    Raises `InvalidInput` (`unsupported_tool`): a misspelt tool must not pass for one that nobody is asked about.
    """
    if policy.tools == "all_changing":
        return policy
    known = tools.SANDBOXED | set(others)
    for place, tool in enumerate(policy.tools):
        if tool not in known:
            detail = f"There is no tool {tool!r} to ask about. Tools: {', '.join(sorted(known))}."
            raise InvalidInput(detail, code="unsupported_tool", pointer=f"/approvals/tools/{place}")
    return policy.model_copy(update={"tools": ordered(policy.tools)})


def joined(
    asked: ApprovalPolicy | None, demanded: ApprovalPolicy | None, changing: frozenset[str] = frozenset()
) -> ApprovalPolicy | None:
    """Every tool that either names, and the shorter time to answer: a run has no fewer approvals than its agent
    demands. `changing` are the agent's tools that may change something, besides our own. None where nobody is
    asked."""
    if asked is None or demanded is None:
        return asked or demanded
    return ApprovalPolicy(
        tools=_together(asked.tools, demanded.tools, tools.CHANGING | changing),
        expires_seconds=min(asked.expires_seconds, demanded.expires_seconds),
    )


def _together(asked: _Tools, demanded: _Tools, changing: frozenset[str]) -> _Tools:
    names = frozenset().union(*(changing if said == "all_changing" else said for said in (asked, demanded)))
    # Stays open to tools that workers may have in the future, unless it has to name one that only reads.
    if "all_changing" in {asked, demanded} and names == changing:
        return "all_changing"
    return ordered(names)


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    known = frozenset(names)
    return (*(name for name in tools.NAMES if name in known), *sorted(known.difference(tools.NAMES)))
