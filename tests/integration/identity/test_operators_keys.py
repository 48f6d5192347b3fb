"""Keys that an operator makes from the terminal."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from codeagent.cli.main import app
from codeagent.eventlog.database import Database
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.identity.key_lookup import DatabaseKeys
from codeagent.identity.keys import KeyHasher, digest_of_key
from codeagent.identity.principal import Principal
from codeagent.identity.scopes import Scope

PEPPER = "p" * 32
CREATE = ("key", "create", "--tenant", "ten_1", "--principal", "sva_1")


@pytest.fixture
def environment(newest_database_url: str) -> dict[str, str]:
    return {
        "CODEAGENT_DATABASE_URL": newest_database_url,
        "CODEAGENT_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "CODEAGENT_API_KEY_PEPPER": PEPPER,
    }


def run(*arguments: str, environment: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, arguments, env=environment)


async def principal_of(url: str, key: str) -> Principal | None:
    database = Database(url, connections=1, role=EDGE_ROLE)
    try:
        return await DatabaseKeys(database, KeyHasher([PEPPER.encode()]), lambda _: None).authenticate(key)
    finally:
        await database.close()


def test_a_key_made_in_the_database_works_for_whom_it_was_made(
    environment: dict[str, str], newest_database_url: str
) -> None:
    done = run(*CREATE, "--scopes", "runs:read,runs:write", "--network", "192.0.2.0/24", environment=environment)
    assert done.exit_code == 0, done.output
    shown: dict[str, Any] = json.loads(done.stdout)
    principal = asyncio.run(principal_of(newest_database_url, shown["api_key"]))
    assert principal is not None
    assert (principal.tenant_id, principal.id, principal.credential_id) == ("ten_1", "sva_1", shown["key_id"])
    assert principal.scopes == {Scope.RUNS_READ, Scope.RUNS_WRITE}
    assert principal.may_come_from("192.0.2.1")
    assert not principal.may_come_from("192.0.3.1")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--scopes", " "), "scope"),
        (("--scopes", "runs:everything"), "runs:everything"),
        (("--scopes", "runs:read", "--network", "192.0.2.1/24"), "192.0.2.1/24"),
        (("--scopes", "runs:read", "--days", "4000"), "365 days"),
    ],
)
def test_what_cannot_be_a_key_is_named_and_not_made(
    environment: dict[str, str], options: tuple[str, ...], named: str
) -> None:
    done = run(*CREATE, *options, environment=environment)
    assert done.exit_code == 2
    assert named in done.stderr


def test_an_entry_for_the_key_file_needs_no_database() -> None:
    shown = json.loads(run("key").stdout)
    assert shown["entry"]["sha256"] == digest_of_key(shown["api_key"])
