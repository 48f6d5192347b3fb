"""The rows of agents and their versions: every statement about them, and nothing that decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter

from codeagent.agent_registry.agent import NAME, NO_VERSION, Agent, AgentVersion, Content, VersionState
from codeagent.agent_registry.canary import Canary, RolledBack
from codeagent.errors import NotFound
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import Change
from codeagent.messages.ids import parse_typed_id
from codeagent.messages.mcp import McpTools
from codeagent.messages.values import ApprovalPolicy, CachePolicy, LimitsAsked

_OFFERS = TypeAdapter(tuple[McpTools, ...])
_AGENT = """id, name, description, version, active_version, former_version, latest_version, canary, rolled_back,
    created_by, created_at, updated_at, archived_at"""
_VERSION = """agent_id, number, state, instructions, model, tools, limits, approvals, egress, fallbacks, mcp, cache,
    delegates, digest, created_by, created_at"""


async def insert_agent(
    change: Change, agent_id: str, tenant_id: str, author_id: str, name: str, description: str, fingerprint: str
) -> Agent:
    row = await change.row(
        f"""INSERT INTO agents (id, tenant_id, version, name, description, fingerprint, created_by)
            VALUES ($1, $2, 1, $3, $4, $5, $6) RETURNING {_AGENT}""",  # noqa: S608  constants
        agent_id,
        tenant_id,
        name,
        description,
        fingerprint,
        author_id,
    )
    return _agent(row)


async def agent_made(database: Database, tenant_id: str, agent_id: str) -> tuple[Agent, str] | None:
    """An agent and the fingerprint of the request that made it."""
    rows = await database.fetch(
        f"SELECT {_AGENT}, fingerprint FROM agents WHERE id = $1",  # noqa: S608  constants
        agent_id,
        tenant=tenant_id,
    )
    return (_agent(rows[0]), rows[0]["fingerprint"]) if rows else None


async def find_agent(database: Database, tenant_id: str, reference: str) -> Agent | None:
    """By id or by name, which never look alike: a name has no underscore."""
    if parse_typed_id("agt", reference) is not None:
        column = "id"
    elif NAME.fullmatch(reference):
        column = "name"
    else:
        return None
    rows = await database.fetch(
        f"SELECT {_AGENT} FROM agents WHERE {column} = $1",  # noqa: S608  constants
        reference,
        tenant=tenant_id,
    )
    return _agent(rows[0]) if rows else None


async def agents_after(database: Database, tenant_id: str, name: str, limit: int, *, archived: bool) -> Sequence[Agent]:
    """At most `limit` agents by name, those beyond `name`."""
    rows = await database.fetch(
        f"""SELECT {_AGENT} FROM agents WHERE name > $1 AND ($2 OR archived_at IS NULL)
            ORDER BY name LIMIT $3""",  # noqa: S608  constants
        name,
        archived,
        limit,
        tenant=tenant_id,
    )
    return [_agent(row) for row in rows]


async def agents_with_canary(database: Database) -> Sequence[tuple[str, Agent]]:
    """Of all tenants, each with its tenant, where `database` sees them."""
    rows = await database.fetch(f"SELECT tenant_id, {_AGENT} FROM agents WHERE canary IS NOT NULL ORDER BY id")  # noqa: S608
    return [(row["tenant_id"], _agent(row)) for row in rows]


async def update_agent(change: Change, agent: Agent, **values: object) -> Agent:
    """Gives columns new values, one version on. Raises `VersionMismatch` where the agent has changed since it was
    read. `values` are named by us, never by a client."""
    assignments = ", ".join(f"{name} = ${place}" for place, name in enumerate(values, start=3))
    row = await change.row(
        f"""UPDATE agents SET version = version + 1, updated_at = clock_timestamp(), {assignments}
            WHERE id = $1 AND version = $2 RETURNING {_AGENT}""",  # noqa: S608  constants
        agent.id,
        agent.version,
        *values.values(),
    )
    return _agent(row)


async def insert_version(
    change: Change, agent: Agent, tenant_id: str, author_id: str, order_id: str, content: Content
) -> tuple[Agent, AgentVersion] | None:
    """The next number of an agent, whatever happens to it at the same moment; None where it has been archived."""
    rows = await change.rows(
        f"""UPDATE agents SET version = version + 1, latest_version = latest_version + 1,
                              updated_at = clock_timestamp()
            WHERE id = $1 AND archived_at IS NULL RETURNING {_AGENT}""",  # noqa: S608  constants
        agent.id,
    )
    if not rows:
        return None
    changed = _agent(rows[0])
    row = await change.row(
        f"""INSERT INTO agent_versions (agent_id, number, tenant_id, order_id, state, instructions, model, tools,
                                        limits, approvals, egress, fallbacks, mcp, cache, delegates, digest,
                                        created_by)
            VALUES ($1, $2, $3, $4, 'draft', $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
            RETURNING {_VERSION}""",  # noqa: S608  constants
        agent.id,
        changed.latest_version,
        tenant_id,
        order_id,
        content.instructions,
        content.model,
        list(content.tools),
        content.limits.model_dump_json(exclude_none=True),
        None if content.approvals is None else content.approvals.model_dump_json(),
        list(content.egress),
        list(content.fallbacks),
        _OFFERS.dump_json(content.mcp).decode(),
        None if content.cache is None else content.cache.model_dump_json(),
        list(content.delegates),
        content.digest,
        author_id,
    )
    return changed, _version(row)


async def version_ordered(database: Database, tenant_id: str, order_id: str) -> AgentVersion | None:
    """The version that a request made."""
    rows = await database.fetch(
        f"SELECT {_VERSION} FROM agent_versions WHERE order_id = $1",  # noqa: S608  constants
        order_id,
        tenant=tenant_id,
    )
    return _version(rows[0]) if rows else None


async def find_version(database: Database, tenant_id: str, agent_id: str, number: int) -> AgentVersion | None:
    rows = await database.fetch(
        f"SELECT {_VERSION} FROM agent_versions WHERE agent_id = $1 AND number = $2",  # noqa: S608  constants
        agent_id,
        number,
        tenant=tenant_id,
    )
    return _version(rows[0]) if rows else None


async def versions_before(
    database: Database, tenant_id: str, agent_id: str, number: int, limit: int
) -> Sequence[AgentVersion]:
    """At most `limit` versions, newest first, those below `number`."""
    rows = await database.fetch(
        f"""SELECT {_VERSION} FROM agent_versions WHERE agent_id = $1 AND number < $2
            ORDER BY number DESC LIMIT $3""",  # noqa: S608  constants
        agent_id,
        number,
        limit,
        tenant=tenant_id,
    )
    return [_version(row) for row in rows]


async def state_of(change: Change, agent_id: str, number: int) -> VersionState:
    """To be read once the agent's row is locked, so that it stays so. Raises `NotFound`."""
    rows = await change.rows("SELECT state FROM agent_versions WHERE agent_id = $1 AND number = $2", agent_id, number)
    if not rows:
        raise NotFound(NO_VERSION)
    return VersionState(rows[0]["state"])


async def set_state(change: Change, agent_id: str, number: int, state: VersionState) -> None:
    await change.row(
        "UPDATE agent_versions SET state = $3 WHERE agent_id = $1 AND number = $2 RETURNING number",
        agent_id,
        number,
        state.value,
    )


@dataclass(frozen=True, slots=True)
class Offered:
    """What new runs of an agent can have: the version that is asked for and, where none is and a canary runs, that of
    the canary. `version` is None where there is none."""

    archived: bool
    description: str
    version: AgentVersion | None
    canary: Canary | None = None
    canary_version: AgentVersion | None = None


async def find_for_run(database: Database, tenant_id: str, name: str, number: int | None) -> Offered | None:
    """Of the agent of this name: its version of this number or, without one, its active version. One query."""
    rows = await database.fetch(
        """SELECT a.id AS agent_id, a.archived_at IS NOT NULL AS archived, a.description,
                  coalesce($2, a.active_version) AS wanted,
                  CASE WHEN $2::integer IS NULL THEN a.canary END AS canary, v.number, v.state, v.instructions, v.model,
                  v.tools, v.limits, v.approvals, v.egress, v.fallbacks, v.mcp, v.cache, v.delegates, v.digest,
                  v.created_by, v.created_at
           FROM agents a
           LEFT JOIN agent_versions v ON v.agent_id = a.id AND v.number IN (
               coalesce($2, a.active_version), CASE WHEN $2::integer IS NULL THEN (a.canary ->> 'number')::integer END)
           WHERE a.name = $1""",
        name,
        number,
        tenant=tenant_id,
    )
    if not rows:
        return None
    first, versions = rows[0], {row["number"]: _version(row) for row in rows if row["number"] is not None}
    canary = None if first["canary"] is None else Canary.model_validate_json(first["canary"])
    in_canary = None if canary is None else versions.get(canary.number)
    return Offered(first["archived"], first["description"], versions.get(first["wanted"]), canary, in_canary)


def _agent(row: Row) -> Agent:
    values = {name: row[name] for name in Agent.__dataclass_fields__ if name != "builtin"}
    for name, kind in (("canary", Canary), ("rolled_back", RolledBack)):
        values[name] = None if row[name] is None else kind.model_validate_json(row[name])
    return Agent(**values)


def _version(row: Row) -> AgentVersion:
    content = Content(
        instructions=row["instructions"],
        model=row["model"],
        tools=tuple(row["tools"]),
        limits=LimitsAsked.model_validate_json(row["limits"]),
        approvals=None if row["approvals"] is None else ApprovalPolicy.model_validate_json(row["approvals"]),
        egress=tuple(row["egress"]),
        fallbacks=tuple(row["fallbacks"]),
        mcp=_OFFERS.validate_json(row["mcp"]),
        cache=None if row["cache"] is None else CachePolicy.model_validate_json(row["cache"]),
        delegates=tuple(row["delegates"]),
    )
    return AgentVersion(
        row["agent_id"],
        row["number"],
        VersionState(row["state"]),
        content,
        row["digest"],
        row["created_by"],
        row["created_at"],
    )
