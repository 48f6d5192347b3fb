"""The audit of an edge, brought up to the newest fact when a test asks."""

from __future__ import annotations

import json
from typing import Any

from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.projections.audit import AuditProjector
from tests.integration.edge.gateway import Edge

EVENTS, EXPORT = "/v1/audit/events", "/v1/audit/export"


async def catch_up(url: str) -> None:
    """Folds what is committed into the audit."""
    owner = Database(url, connections=2)
    projector = AuditProjector(owner, EventLog(owner))
    while await projector.catch_up():
        pass
    await owner.close()


async def lines(edge: Edge, url: str, key: str, **wanted: Any) -> list[dict[str, Any]]:
    """What a search finds, newest first."""
    await catch_up(url)
    answer = await edge.call(key, "GET", EVENTS, params=wanted)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


def acts(found: list[dict[str, Any]]) -> list[str]:
    """Their actions, without what stands around the name."""
    return [line["type"].removeprefix("io.codeagent.").rpartition(".v")[0] for line in found]


def exported(text: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The lines of an export, and what its last one says."""
    *events, end = (json.loads(line) for line in text.splitlines())
    return events, end["data"]
