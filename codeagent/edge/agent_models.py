"""Bodies of requests and answers about agents."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, Field

from codeagent import hosts
from codeagent.agent.delegates import MOST
from codeagent.agent_registry.agent import (
    NAME_PATTERN,
    REFERENCE_PATTERN,
    Agent,
    AgentVersion,
    Content,
    VersionState,
    chosen_delegates,
    chosen_hosts,
    chosen_tools,
)
from codeagent.agent_registry.approvals import checked
from codeagent.agent_registry.canary import Canary, RolledBack
from codeagent.agent_registry.mcp_tools import check_all
from codeagent.edge.mcp_models import McpToolsBody
from codeagent.edge.model_names import MOST_FALLBACKS, ModelName
from codeagent.edge.models import ApprovalsBody, LimitsBody, Strict, Whole
from codeagent.messages.mcp import McpTools
from codeagent.messages.values import ApprovalPolicy, CachePolicy, LimitsAsked

# Neither holds a NUL, which PostgreSQL cannot keep.
Description = Annotated[str, Field(max_length=1_000, pattern=r"^[^\x00]*$", examples=["Reads and reports."])]
Instructions = Annotated[
    str,
    Field(
        max_length=16_000,
        pattern=r"^[^\x00]*$",
        description="Guidance that is added to the built-in prompt, marked as the operator's.",
        examples=["Change nothing. Report what you find."],
    ),
]


class AgentBody(Strict):
    """An agent to make. It can be used once it has a version that is active."""

    name: str = Field(
        pattern=NAME_PATTERN,
        description="What runs call it by. It is taken for ever, also once the agent is archived.",
        examples=["reviewer"],
    )
    description: Description = ""


class AgentPatch(Strict):
    """What of an agent can be changed."""

    description: Description


class CacheBody(Strict):
    """How old a reply may be that is given again."""

    ttl_seconds: Whole = Field(ge=60, le=2_592_000)

    def policy(self) -> CachePolicy:
        return CachePolicy(ttl_seconds=self.ttl_seconds)


class VersionBody(Strict):
    """A version to make. It never changes; another one takes its place."""

    instructions: Instructions = ""
    model: str | None = Field(
        default=None,
        max_length=200,
        description="What runs get that name no model; the installation's default if absent.",
        examples=["builtin/repair"],
    )
    fallbacks: tuple[ModelName, ...] = Field(
        default=(),
        max_length=MOST_FALLBACKS,
        description="Models, in their order, that stand in where the version's model, or the installation's default, "
        "cannot answer.",
        examples=[["builtin/repair"]],
    )
    tools: tuple[str, ...] | None = Field(
        default=None,
        max_length=50,
        description="The tools that its runs may call; all if absent. `submit`, which ends a run, is always added.",
        examples=[["read_file", "search"]],
    )
    limits: LimitsBody = Field(
        default=LimitsBody(), description="Defaults of its runs, and the most that they may ask for."
    )

    approvals: ApprovalsBody | None = Field(
        default=None, description="What people are asked about, at least: a run may ask for more, never for less."
    )
    egress: tuple[Annotated[str, Field(max_length=hosts.LONGEST_HOST)], ...] = Field(
        default=(),
        max_length=hosts.MOST_HOSTS,
        description="Of the hosts that the operator lists, those that commands of its runs may reach by HTTPS; none if "
        "empty. A host is its full name, or `*.` and a name for all below that, with a port unless it is 443.",
        examples=[["pypi.org", "*.pythonhosted.org"]],
    )

    mcp: tuple[McpToolsBody, ...] = Field(
        default=(),
        max_length=10,
        description="Tools of the servers that the operator lists, which runs may call as `mcp__SERVER__TOOL`. A call "
        "is refused once the server offers them no more, or describes them otherwise.",
    )
    cache: CacheBody | None = Field(
        default=None,
        description="Lets its runs have what a model has replied to the very same request, of any run of the tenant, "
        "in the place of asking it again. Models are always asked if absent.",
    )

    delegates: tuple[Annotated[str, Field(pattern=REFERENCE_PATTERN)], ...] = Field(
        default=(),
        max_length=MOST,
        description="Agents that its runs may hand work to, each once, as `name` or `name@number`. Which version that "
        "is, is settled when a run is submitted.",
        examples=[["reviewer", "tester@2"]],
    )

    def content(self) -> Content:
        """Raises `InvalidInput` (`unsupported_tool`, `unsupported_host`, `unsupported_mcp_tool`,
        `unsupported_delegate`)."""
        offers = check_all(tuple(body.pinned() for body in self.mcp))
        names = [offer.named(tool.name) for offer in offers for tool in offer.tools]
        limits = LimitsAsked.model_validate(self.limits.model_dump())
        approvals = None if self.approvals is None else checked(self.approvals.policy(), names)
        egress = chosen_hosts(self.egress)
        tools = chosen_tools(self.tools)
        cache = None if self.cache is None else self.cache.policy()
        delegates = chosen_delegates(self.delegates)
        models = self.model, tools, limits, approvals, egress, self.fallbacks
        return Content(self.instructions, *models, offers, cache, delegates)


class AgentModel(BaseModel):
    """An agent. `former_version` is what a rollback returns to; `canary` is the one that runs, `rolled_back` the end of
    the newest one that broke its bounds; built-in agents have neither times nor an author."""

    id: str
    name: str
    description: str
    builtin: bool
    active_version: int | None
    former_version: int | None
    latest_version: int
    canary: Canary | None
    rolled_back: RolledBack | None
    version: int
    created_by: str | None
    created_at: datetime | None
    updated_at: datetime | None
    archived_at: datetime | None

    @classmethod
    def of(cls, agent: Agent) -> Self:
        return cls(**{name: getattr(agent, name) for name in cls.model_fields})


class AgentPage(BaseModel):
    items: list[AgentModel]
    next_cursor: str | None


class AgentVersionModel(BaseModel):
    """A version. `digest` is over the canonical JSON of `instructions`, `model`, `tools`, `limits`, `approvals` and,
    unless they are empty, `egress`, `fallbacks`, `delegates`, `cache` and, by server, the digests of
    `mcp`."""

    agent_id: str
    agent: str
    number: int
    state: VersionState
    instructions: str
    model: str | None
    fallbacks: list[str]
    tools: list[str]
    limits: LimitsAsked
    approvals: ApprovalPolicy | None
    egress: list[str]
    mcp: list[McpTools]
    cache: CachePolicy | None
    delegates: list[str]
    digest: str
    created_by: str | None
    created_at: datetime | None

    @classmethod
    def of(cls, agent: Agent, version: AgentVersion) -> Self:
        content = version.content
        return cls(
            agent_id=agent.id,
            agent=agent.name,
            number=version.number,
            state=version.state,
            instructions=content.instructions,
            model=content.model,
            fallbacks=list(content.fallbacks),
            tools=list(content.tools),
            limits=content.limits,
            approvals=content.approvals,
            egress=list(content.egress),
            mcp=list(content.mcp),
            cache=content.cache,
            delegates=list(content.delegates),
            digest=version.digest,
            created_by=version.created_by,
            created_at=version.created_at,
        )


class AgentVersionPage(BaseModel):
    items: list[AgentVersionModel]
    next_cursor: str | None
