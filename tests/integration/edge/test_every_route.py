"""What holds for every route under /v1, whichever there are: no key, too few scopes, another tenant's ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.routing import iter_route_contexts

from codeagent.artifacts.store import LocalArtifactStore
from codeagent.edge.app import create_app
from codeagent.eventlog.database import Database
from codeagent.transparency.sealer import Sealer
from tests.architecture.test_routes import OWN, PUBLIC
from tests.integration.edge.auditing import lines
from tests.integration.edge.gateway import OTHERS, Edge
from tests.integration.eventlog.steps import APPROVAL, commit_step, new_run, started, step, waiting
from tests.integration.transparency.sealed import KEYS, seal_all

Record = Callable[[str, object], None]
"""pytest's `record_property`: how many cases a test has tried, for the report of `make test-security`."""
ROUTES = sorted(
    (method, str(route.path).replace(":path}", "}"))
    for route in iter_route_contexts(create_app(None).routes)
    if str(route.path).startswith("/v1/") and route.path not in PUBLIC
    for method in route.methods or ()
)
"""Method and path, as in ("GET", "/v1/runs/{run_id}")."""
SCOPED = [(method, path) for method, path in ROUTES if path not in OWN]
OPERATORS = ("/v1/admin/", "/v1/audit/log/")
"""Their ids are of no tenant: what an operator may see has tests of its own, and nobody else sees anything."""
WITH_IDS = [(method, path) for method, path in SCOPED if "{" in path and not path.startswith(OPERATORS)]
ACCOUNT = {"name": "test", "scopes": ["runs:read"]}
MEMBER = {"email": "ada@example.org", "role": "viewer"}
BUDGET = {"name": "test", "period": "day", "unit": "usd", "limit": "1"}
BODIES = {
    ("PATCH", "/v1/budgets/{budget_id}"): {"limit": "2"},
    ("PATCH", "/v1/members/{user_id}"): {"role": "viewer"},
    ("PATCH", "/v1/agents/{agent_id}"): {"description": "mine now"},
    ("POST", "/v1/agents/{agent_id}/versions"): {},
    ("POST", "/v1/agents/{agent_id}/versions/{number}/canary"): {},
    ("PATCH", "/v1/webhooks/{webhook_id}"): {},
    ("PATCH", "/v1/projects/{project_id}"): {"model": "a/b"},
    ("PATCH", "/v1/sessions/{session_id}"): {"title": "t"},
    ("POST", "/v1/sessions/{session_id}/messages"): {"content": "t"},
    ("POST", "/v1/runs/{run_id}/replays"): {"agent": "coder@1", "until_version": 1},
    ("PUT", "/v1/projects/{project_id}/git-credential"): {"token": "t"},
    ("POST", "/v1/runs/{run_id}/approvals/{approval_id}"): {"decision": "reject"},
}
"""Of operations that take nothing without one."""
HEADERS = {"Idempotency-Key": "k", "If-Match": "*"}


@pytest.fixture
async def theirs(edge: Edge, newest_database_url: str, tmp_path: Path) -> dict[str, str]:
    """Something of another tenant for every parameter of a path. A new kind of id needs a line here."""
    owner, run_id = Database(newest_database_url, connections=1), new_run()
    await commit_step(owner, replace(step(run_id, 0, [started(), waiting()]), tenant_id=OTHERS))
    await owner.write("INSERT INTO tenants (id, version, name) VALUES ($1, 1, 'Others')", OTHERS)
    await owner.close()
    store = LocalArtifactStore(tmp_path / "artifacts")
    agent = await edge.call(edge.keys.stranger, "POST", "/v1/agents", json={"name": "theirs"}, headers=HEADERS)
    versions = f"/v1/agents/{agent.json()['id']}/versions"
    for number, move in ((1, "promote"), (2, "canary")):
        new = {**HEADERS, "Idempotency-Key": f"version {number}"}
        await edge.call(edge.keys.stranger, "POST", versions, json={}, headers=new)
        await edge.call(edge.keys.stranger, "POST", f"{versions}/{number}/{move}", json={}, headers=HEADERS)
    webhook = await edge.make_webhook(edge.keys.stranger)
    delivery = await edge.call(edge.keys.stranger, "POST", f"/v1/webhooks/{webhook['id']}/test")
    account = await edge.call(edge.keys.stranger, "POST", "/v1/service-accounts", json=ACCOUNT, headers=HEADERS)
    key, project = {"Idempotency-Key": "k"}, {"name": "theirs", "repository": "https://git.example.org/a.git"}
    made = await edge.call(edge.keys.stranger, "POST", "/v1/projects", json=project, headers=key)
    session = await edge.call(edge.keys.stranger, "POST", "/v1/sessions", json={}, headers=key)
    key_id = (await edge.make_key(edge.keys.stranger))["id"]
    await seal(newest_database_url)
    return {
        "event_id": (await lines(edge, newest_database_url, edge.keys.stranger, resource_id=key_id))[0]["id"],
        "run_id": run_id,
        "session_id": session.json()["id"],
        "project_id": made.json()["id"],
        **await privacy_of_theirs(edge, newest_database_url),
        "approval_id": APPROVAL,
        "digest": await store.put(OTHERS, b"theirs"),
        "agent_id": agent.json()["id"],
        "number": "1",
        "key_id": key_id,
        "user_id": (await edge.call(edge.keys.stranger, "POST", "/v1/members", json=MEMBER, headers=HEADERS)).json()[
            "id"
        ],
        "budget_id": (await edge.call(edge.keys.stranger, "POST", "/v1/budgets", json=BUDGET, headers=HEADERS)).json()[
            "id"
        ],
        "account_id": account.json()["id"],
        "webhook_id": webhook["id"],
        "delivery_id": delivery.json()["id"],
    }


async def seal(url: str) -> None:
    """Proofs are of sealed events."""
    database = Database(url, connections=2)
    await seal_all(database, Sealer(database, KEYS))
    await database.close()


async def privacy_of_theirs(edge: Edge, url: str) -> dict[str, str]:
    """A request that is being worked on, one whose subject is erased, and a breach."""
    owner = Database(url, connections=1)
    await owner.write(
        "INSERT INTO users (id, tenant_id, version, role) VALUES ('usr_1', $1, 1, 'viewer'), ('usr_2', $1, 1, 'viewer')",
        OTHERS,
    )
    body = {"kind": "erasure", "subject": "usr_2"}
    certified = await edge.call(
        edge.keys.stranger, "POST", "/v1/privacy/requests", json=body, headers=HEADERS | {"Idempotency-Key": "e"}
    )
    await owner.write(
        """INSERT INTO erasures (id, tenant_id, subject_id, closed_at, completed_at, certificate)
           VALUES ($1, $2, 'usr_2', now(), now(), 'codeagent.io/erasure/v1')""",
        certified.json()["id"],
        OTHERS,
    )
    await owner.close()
    body = {"kind": "access", "subject": "usr_1"}
    request = await edge.call(edge.keys.stranger, "POST", "/v1/privacy/requests", json=body, headers=HEADERS)
    path = request.headers["location"]
    await edge.call(edge.keys.stranger, "PATCH", path, json={"status": "in_progress"}, headers=HEADERS)
    body = {"summary": "A laptop was stolen.", "discovered_at": "2026-01-01T00:00:00Z"}
    breach = await edge.call(edge.keys.stranger, "POST", "/v1/privacy/breaches", json=body, headers=HEADERS)
    return {
        "request_id": request.json()["id"],
        "certified_id": certified.json()["id"],
        "breach_id": breach.json()["id"],
    }


async def test_another_tenants_id_is_an_id_of_nothing(
    edge: Edge, theirs: dict[str, str], record_property: Record
) -> None:
    answers = {}
    for method, path in WITH_IDS:
        target = path.replace("{request_id}/certificate", "{certified_id}/certificate").format_map(theirs)
        body = BODIES.get((method, path))
        answer = await edge.call(edge.keys.owner, method, target, headers=HEADERS, json=body)
        answers[method, path] = answer.status_code, answer.json()["code"]
        if method == "GET":  # there it is, for those whose it is
            assert (await edge.call(edge.keys.stranger, method, target)).status_code == 200, path
    record_property("cases", len(WITH_IDS))
    assert answers == dict.fromkeys(WITH_IDS, (404, "not_found"))


class Anything(dict[str, str]):
    """Some value for every parameter of a path."""

    def __missing__(self, key: str) -> str:
        return "x"


async def test_without_a_key_or_its_scopes_nothing_is_done(edge: Edge, record_property: Record) -> None:
    bare, powerless = {}, {}
    for method, path in ROUTES:
        target = path.format_map(Anything())
        answer = await edge.http.request(method, target, headers=HEADERS)
        bare[method, path] = answer.status_code, answer.json()["code"]
        assert answer.headers["www-authenticate"].startswith("Bearer"), path
        if (method, path) in SCOPED:
            answer = await edge.call(edge.keys.powerless, method, target, headers=HEADERS)
            powerless[method, path] = answer.status_code, answer.json()["code"]
    record_property("cases", len(ROUTES) + len(SCOPED))
    assert bare == dict.fromkeys(ROUTES, (401, "unauthenticated"))
    assert powerless == dict.fromkeys(SCOPED, (403, "insufficient_scope"))
