"""Whether a database has room for the connections that all processes may open."""

from __future__ import annotations

from collections.abc import Mapping

from codeagent.cli.secrets import database_url
from codeagent.errors import CodeAgentError
from codeagent.eventlog.capacity import free_connections
from codeagent.eventlog.database import Database
from codeagent.settings import Problem, Settings
from codeagent.settings.about import variable

LISTENING = {"edge": 1, "provider-worker": 1, "sandbox-worker": 1}
"""Connections outside the pool: workers of effects listen for cancels, edges for revocations."""
ROLES = ("edge", "agent-worker", "provider-worker", "sandbox-worker", "relay")


def connections_wanted(settings: Settings) -> Mapping[str, int]:
    """The most connections of all processes of each role together."""
    deployed = {str(role): count for role, count in settings.deployed_processes.items()}
    return {role: deployed.get(role, 1) * (settings.database_connections + LISTENING.get(role, 0)) for role in ROLES}


async def pool_problems(settings: Settings) -> list[Problem]:
    """What is wrong with the pools' sizes, or with asking the database."""
    database = Database(await database_url(settings), connections=2, name="codeagent-check")
    try:
        free = await free_connections(database)
    except CodeAgentError as error:
        return [Problem(variable("database_url"), f"cannot be used: {error.detail}")]
    finally:
        await database.close()
    wanted = connections_wanted(settings)
    if sum(wanted.values()) <= free:
        return []
    parts = ", ".join(f"{role} {count}" for role, count in wanted.items() if count)
    return [
        Problem(
            variable("database_connections"),
            f"lets all processes open {sum(wanted.values())} connections ({parts}), and the database has {free} for us",
            "make it smaller, or max_connections larger",
        )
    ]
