"""Agents made over HTTP, for tests that need some."""

from __future__ import annotations

from typing import Any

import httpx2

from codeagent import clock
from tests.integration.edge.gateway import Edge

GIT = {"kind": "git", "url": "https://git.example.org/team/project.git"}


def refused(answer: httpx2.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


async def post(edge: Edge, path: str, body: Any, repeat: str | None = None, key: str | None = None) -> httpx2.Response:
    headers = {"Idempotency-Key": repeat or str(clock.new_uuid())}
    return await edge.call(key or edge.keys.owner, "POST", path, json=body, headers=headers)


async def define(edge: Edge, name: str, *versions: dict[str, Any]) -> dict[str, Any]:
    """An agent with these versions, all of them drafts."""
    made = await post(edge, "/v1/agents", {"name": name})
    assert made.status_code == 201, made.text
    for number, version in enumerate(versions, start=1):
        answer = await post(edge, f"/v1/agents/{name}/versions", version)
        assert (answer.status_code, answer.json()["number"]) == (201, number), answer.text
    return dict(made.json())


async def move(edge: Edge, name: str, what: str) -> httpx2.Response:
    """`what` is the rest of the path, as in `versions/2/promote`."""
    return await edge.call(edge.keys.owner, "POST", f"/v1/agents/{name}/{what}", headers={"If-Match": "*"})


async def states(edge: Edge, name: str) -> list[str]:
    """Of the versions, from the first on."""
    page = (await edge.call(edge.keys.owner, "GET", f"/v1/agents/{name}/versions")).json()
    return [version["state"] for version in reversed(page["items"])]


async def run(edge: Edge, agent: str, key: str | None = None, **body: Any) -> httpx2.Response:
    wanted = {"task": "look", "source": GIT, "agent": agent, **body}
    return await post(edge, "/v1/runs", wanted, key=key)
