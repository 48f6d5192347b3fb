"""What an agent is to those who define it: a name, and versions of what it works by."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

import orjson

from codeagent import hosts
from codeagent.agent import tools
from codeagent.agent_registry.canary import Canary, RolledBack
from codeagent.errors import Conflict, InvalidInput
from codeagent.messages.ids import derived_uuid, typed_id
from codeagent.messages.mcp import McpTools
from codeagent.messages.sandbox_limits import SandboxLimits
from codeagent.messages.values import (
    AgentDefinition,
    ApprovalPolicy,
    Assignment,
    CachePolicy,
    LimitsAsked,
    RunLimits,
)

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
REFERENCE_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(@[1-9][0-9]{0,8})?$"
ANY_LIMITS = LimitsAsked()
DEFAULT_LIMITS = RunLimits()
NAME = re.compile(NAME_PATTERN)
NONE_SUCH = "There is no such agent."
NO_VERSION = "The agent has no such version."


class VersionState(StrEnum):
    """A draft was never given to runs that do not name it, a deprecated version was: as the active one, or as a canary.
    Both can be promoted; a retired one never again."""

    DRAFT = "draft"
    CANARY = "canary"
    ACTIVE = "active"
    DEPRECATED = "deprecated"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class Agent:
    """`version` is that of its stream and changes with everything below, its versions' states included.

    `former_version` was active before `active_version`: what a rollback returns to. `latest_version` is the highest
    number. `canary` is the one that runs, `rolled_back` the end of the newest one that broke its bounds. Times and
    author are None for an agent that is built in.
    """

    id: str
    name: str
    description: str
    version: int
    active_version: int | None = None
    former_version: int | None = None
    latest_version: int = 0
    canary: Canary | None = None
    rolled_back: RolledBack | None = None
    builtin: bool = False
    created_by: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    archived_at: datetime | None = None

    def check_open(self) -> None:
        """Raises `Conflict` for an agent that nobody changes any more, or ever."""
        if self.builtin:
            raise Conflict("A built-in agent cannot be changed.", code="invalid_state_transition")
        if self.archived_at is not None:
            raise Conflict("The agent is archived.", code="invalid_state_transition")


@dataclass(frozen=True, slots=True)
class Content:
    """What a version says. `instructions` are added to the built-in prompt; without a `model` runs have the
    installation's default; `limits` are defaults of a run and the most that it may ask for; `approvals` are the least
    that people are asked about; `egress` is what commands may reach, as `name:port` or `*.name:port`, sorted;
    `fallbacks` are models that stand in for the version's own, or for the default; `mcp` are tools of servers outside,
    by server; `cache` lets models' replies be given again; `delegates` are agents that its runs may hand work to, as
    `name` or `name@number`."""

    instructions: str = ""
    model: str | None = None
    tools: tuple[str, ...] = tools.NAMES
    limits: LimitsAsked = ANY_LIMITS
    approvals: ApprovalPolicy | None = None
    egress: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    mcp: tuple[McpTools, ...] = ()
    cache: CachePolicy | None = None
    delegates: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Over the content's canonical JSON (RFC 8785; it has no number but integers, and ASCII names). `egress`,
        `fallbacks`, `delegates`, `cache` and the digests of `mcp` are in it where there are any: versions are older
        than those."""
        said: dict[str, object] = {
            "approvals": None if self.approvals is None else self.approvals.model_dump(mode="json"),
            "instructions": self.instructions,
            "limits": self.limits.model_dump(mode="json"),
            "model": self.model,
            "tools": self.tools,
        }
        said |= {name: value for name in ("egress", "fallbacks", "delegates") if (value := getattr(self, name))}
        if self.cache is not None:
            said["cache"] = self.cache.model_dump(mode="json")
        if self.mcp:
            said["mcp"] = {offer.server: offer.digest for offer in self.mcp}
        return f"sha256:{sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()}"


@dataclass(frozen=True, slots=True)
class AgentVersion:
    """One version, which never changes but for its state."""

    agent_id: str
    number: int
    state: VersionState
    content: Content
    digest: str
    created_by: str | None = None
    created_at: datetime | None = None


def definition_of(version: AgentVersion, assignment: Assignment | None = None) -> AgentDefinition:
    """What a run keeps of its version for good."""
    content = version.content
    return AgentDefinition(
        id=version.agent_id,
        digest=version.digest,
        instructions=content.instructions,
        tools=content.tools,
        egress=content.egress or None,
        assignment=assignment,
        mcp=content.mcp or None,
        cache=content.cache,
    )


def chosen_tools(names: tuple[str, ...] | None) -> tuple[str, ...]:
    """The named tools, or all, in our own order. `submit` is always among them: it is how a run ends.

    Raises `InvalidInput` (`unsupported_tool`).
    """
    if names is None:
        return tools.NAMES
    for place, name in enumerate(names):
        if name not in tools.TOOLS:
            raise InvalidInput(f"There is no tool {name!r}.", code="unsupported_tool", pointer=f"/tools/{place}")
    return tuple(name for name in tools.NAMES if name in names or name == tools.Submit.TOOL)


def chosen_hosts(named: tuple[str, ...]) -> tuple[str, ...]:
    """The hosts as `name:port`, once each, sorted. Raises `InvalidInput` (`unsupported_host`)."""
    chosen = set()
    for place, text in enumerate(named):
        try:
            chosen.add(hosts.listed(text))
        except ValueError as error:
            detail = f"This is no host for commands to reach: {error}."
            raise InvalidInput(detail, code="unsupported_host", pointer=f"/egress/{place}") from None
    return tuple(sorted(chosen))


def check_hosts(chosen: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    """Raises `InvalidInput` (`egress_refused`) for a host that the operator lets no command reach."""
    for host in chosen:
        if not any(hosts.covers(entry, host) for entry in allowed):
            detail = f"The operator lets no command reach {host}."
            raise InvalidInput(detail, code="egress_refused", pointer="/egress")


def chosen_delegates(named: tuple[str, ...]) -> tuple[str, ...]:
    """Raises `InvalidInput` (`unsupported_delegate`) for an agent that is there twice: it is called by its name."""
    names = [reference.partition("@")[0] for reference in named]
    for place, name in enumerate(names):
        if name in names[:place]:
            detail = f"Agent {name!r} is there twice."
            raise InvalidInput(detail, code="unsupported_delegate", pointer=f"/delegates/{place}")
    return named


def run_limits(asked: LimitsAsked, bounds: LimitsAsked) -> RunLimits:
    """A run's limits: as asked for, else as its agent has them, else the defaults. Raises `InvalidInput`
    (`limit_exceeded`) for more than the agent allows."""
    if not (asked.model_fields_set or bounds.model_fields_set):
        return DEFAULT_LIMITS
    chosen = {name: value for name, value in bounds if value is not None}
    for name, value in asked:
        if isinstance(value, SandboxLimits):
            chosen[name] = _of_sandbox(value, bounds.sandbox)
        elif value is not None:
            if name in chosen and value > chosen[name]:
                raise _above(name, chosen[name])
            chosen[name] = value
    return RunLimits(**chosen)


def _of_sandbox(asked: SandboxLimits, bounds: SandboxLimits | None) -> SandboxLimits:
    if bounds is None:
        return asked
    if (found := asked.first_above(bounds)) is not None:
        raise _above(f"sandbox/{found[0]}", found[1])
    return asked.over(bounds)


def _above(name: str, most: object) -> InvalidInput:
    return InvalidInput(f"The agent allows {most} at most.", code="limit_exceeded", pointer=f"/limits/{name}")


_CODER_ID = typed_id("agt", derived_uuid("agent", "builtin", "coder"))
BUILTIN = {
    "coder": Agent(
        _CODER_ID, "coder", "Works on a repository with every tool.", 1, 1, None, latest_version=1, builtin=True
    ),
}
"""By name. Each has one version, which says nothing beside the built-in prompt."""
BUILTIN_CONTENT = Content()


def builtin_version(agent: Agent) -> AgentVersion:
    return AgentVersion(agent.id, 1, VersionState.ACTIVE, BUILTIN_CONTENT, BUILTIN_CONTENT.digest)
