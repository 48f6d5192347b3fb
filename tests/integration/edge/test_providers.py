"""Providers and models over HTTP, and that no secret of the settings gets out by any way."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi.routing import iter_route_contexts

from codeagent.edge.app import create_app
from codeagent.eventlog.database import Database
from codeagent.provider_registry.tables import report
from codeagent.providers.breaker import Breaker
from tests.integration.edge.gateway import KEK, Edge, Keys, running_edge

MARK = "MARKED"
PROVIDERS: list[dict[str, Any]] = [
    {"name": "openai", "kind": "openai", "api_key": f"{MARK}-given", "models": ["gpt-5"]},
    {"name": "anthropic", "kind": "anthropic", "api_key": f"env:{MARK}_VARIABLE"},
    {"name": "local", "kind": "openai", "base_url": f"http://models.internal:8000/{MARK}-path/v1", "models": ["qwen"]},
    {"name": "vault", "kind": "openai", "api_key": f"vault:{MARK}/path#{MARK}", "models": [f"{'m' * 20}"]},
]


@pytest.fixture
async def marked(newest_database_url: str, tmp_path: Path, file_keys: Keys) -> AsyncIterator[Edge]:
    """An edge all of whose secrets can be told when they are seen."""
    key = tmp_path / f"{MARK}-file"
    key.write_text(f"{MARK}-content")
    providers = tmp_path / "providers.json"
    held = {"name": "held", "kind": "openai", "api_key_file": str(key), "models": ["x"]}
    providers.write_text(json.dumps([*PROVIDERS, held]))
    secrets = {
        "providers_file": providers,
        "api_key_pepper": f"{MARK}-pepper-of-thirty-two-characters",
        "database_password": f"{MARK}-password",
        "valkey_url": f"redis://:{MARK}@127.0.0.1:1/0",
        "vault_token": f"{MARK}-token",
    }
    async with running_edge(newest_database_url, tmp_path, file_keys, **secrets) as running:
        yield running


async def test_how_calls_of_a_provider_go_is_shown_as_its_workers_have_told(
    marked: Edge, newest_database_url: str
) -> None:
    workers = Database(newest_database_url, connections=1)
    failing = Breaker("openai", failures_to_open=1)
    failing.record(failing.admit(), "failure", "overloaded")
    for worker, breaker in (("a", failing), ("b", Breaker("openai"))):
        await report(workers, worker, {"openai": breaker.standing}, timedelta(minutes=10))
    await workers.close()
    answer = await marked.call(marked.keys.owner, "GET", "/v1/providers")
    shown = {item["name"]: item["health"] for item in answer.json()["items"]}
    assert (shown["openai"]["open"], shown["openai"]["half_open"], shown["openai"]["closed"]) == (1, 0, 1)
    assert (shown["openai"]["last_failure_reason"], shown["openai"]["last_answer_at"]) == ("overloaded", None)
    assert shown["local"] is None


async def test_providers_and_models_are_listed_without_how_we_get_at_them(marked: Edge) -> None:
    answer = await marked.call(marked.keys.owner, "GET", "/v1/providers")
    assert answer.status_code == 200
    seen = {item["name"]: item for item in answer.json()["items"]}
    assert list(seen) == ["builtin", "openai", "anthropic", "local", "vault", "held"]
    assert seen["local"] == {
        "name": "local",
        "kind": "openai",
        "host": "models.internal",
        "key_configured": False,
        "models": ["local/qwen"],
        "health": None,
    }
    assert seen["anthropic"]["key_configured"]
    assert seen["anthropic"]["models"] == ["anthropic/*"]
    answer = await marked.call(marked.keys.owner, "GET", "/v1/models")
    models = {item["id"]: item for item in answer.json()["items"]}
    assert [name for name, model in models.items() if model["is_default"]] == ["builtin/repair"]
    assert float(models["openai/gpt-5"]["prices"]["output_usd"]) > 0
    assert models["local/qwen"]["prices"] is None


async def test_listing_them_takes_its_own_scope(edge: Edge) -> None:
    reader = (await edge.make_key(edge.keys.owner, scopes=["providers:read"]))["key"]
    other = (await edge.make_key(edge.keys.owner, scopes=["runs:read"]))["key"]
    for path in ("/v1/providers", "/v1/models"):
        assert (await edge.call(reader, "GET", path)).status_code == 200
        assert (await edge.call(other, "GET", path)).json()["code"] == "insufficient_scope"


async def test_no_secret_of_the_settings_is_in_any_answer(marked: Edge, newest_database_url: str) -> None:
    password = urlsplit(newest_database_url).password
    secrets = [MARK, KEK.partition(":")[2], *([password] if password and len(password) > 8 else [])]
    asked = 0
    for route in iter_route_contexts(create_app(None).routes):
        for method in route.methods or ():
            for body in ({}, {"task": "x", "agent": "coder", "model": "openai/no", "name": "x", "scopes": ["admin"]}):
                path = str(route.path).replace("{agent_id}", "coder").replace("{", "").replace("}", "")
                headers = {"Idempotency-Key": "k", "If-Match": "*"}
                answer = await marked.call(marked.keys.owner, method, path, json=body, headers=headers)
                told = f"{answer.headers}{answer.text}"
                assert not any(secret in told for secret in secrets), (method, path)
                asked += 1
    assert asked > 100
