"""People with accounts of their own, as clients of a whole system."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import httpx2

from codeagent.cli.up import TENANT
from tests.acceptance.checks import archive_of
from tests.acceptance.system import UpSystem, codeagent
from tests.integration.identity.oauth_client import OAuthClient

OWNER = "owner@example.org"
PASSWORD = "Ada-wrote-the-first-one-1843"


def bootstrap(system: UpSystem) -> None:
    """The tenant that the system's own API key belongs to gets its owner."""
    command = codeagent(
        *("admin", "bootstrap", "--data-dir", str(system.data_dir), "--tenant-id", TENANT),
        *("--email", OWNER, "--name", "First", "--password-stdin"),
    )
    subprocess.run(command, input=PASSWORD.encode(), capture_output=True, timeout=60, check=True)


class Person:
    """Somebody who is logged in. `id` is theirs."""

    def __init__(self, client: OAuthClient, user_id: str) -> None:
        self.client = client
        self.id = user_id

    async def call(self, method: str, path: str, *, key: str = "", match: str = "", **more: Any) -> httpx2.Response:
        headers = ({"Idempotency-Key": key} if key else {}) | ({"If-Match": match} if match else {})
        return await self.client.call(method, path, headers=headers | more.pop("headers", {}), **more)

    async def run(self, task: str, files: dict[str, str], key: str, **more: Any) -> str:
        """Submits a run on these files; its id."""
        archive = archive_of(files)
        stored = await self.client.call(
            "POST", "/v1/artifacts", headers={"Content-Type": "application/gzip"}, content=archive
        )
        assert stored.status_code in {200, 201}, stored.text
        source = {"kind": "archive", "digest": stored.json()["digest"]}
        body = {"task": task, "source": source, "model": "local/scripted", **more}
        answer = await self.call("POST", "/v1/runs", key=key, json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])


async def log_in(system: UpSystem, email: str, password: str) -> Person:
    """With a password of one's own, chosen at the first login."""
    http = httpx2.AsyncClient(base_url=system.connection.url, timeout=30.0)
    client = OAuthClient(http)
    (await client.log_in(email, password)).raise_for_status()
    me = (await client.get("/v1/me")).json()
    if me["password_change_required"]:
        chosen = {"current_password": password, "new_password": PASSWORD}
        (await client.call("POST", "/v1/auth/password", json=chosen)).raise_for_status()
        (await client.renew()).raise_for_status()
    return Person(client, me["id"])


async def owner_of(system: UpSystem) -> Person:
    bootstrap(system)
    return await log_in(system, OWNER, PASSWORD)


async def colleague(system: UpSystem, owner: Person, email: str) -> Person:
    made = await owner.call("POST", "/v1/members", key=email, json={"email": email, "role": "developer"})
    assert made.status_code == 201, made.text
    return await log_in(system, email, json.loads(made.text)["temporary_password"])
