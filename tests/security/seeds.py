"""Things that are there: without them an attack on `/v1/runs/{run_id}` meets nothing but 404.

A new kind of id needs a line in `makers`; a body that no generated one can replace, such as a login, one in `bodies`.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import schemathesis

from codeagent import clock
from tests.integration.edge.gateway import MINE
from tests.integration.eventlog.steps import APPROVAL
from tests.security.attacked import EMAIL, NEIGHBOUR, PASSWORD, PROVIDER, Target, pkce

Document = dict[str, Any]
METHODS = ("get", "head", "post", "put", "patch", "delete")
SPARE = 5
"""How many of each kind of thing generated requests may name, besides the one that each operation has to itself."""
HEADERS = {
    "If-Match": ["*", '"1"'],
    "If-None-Match": ['"0"', "*"],
    "Prefer": ["return=minimal", "respond-async", "wait=0"],
    "Last-Event-ID": ["0", "1"],
    "Range": ["bytes=0-1", "bytes=-1"],
}
"""Values that mean something. A wait would take its time, thousands of times over."""

RENAMED = {
    "/v1/auth/sessions/{session_id}": {"session_id": "login_id"},
    "/v1/privacy/requests/{request_id}/certificate": {"request_id": "certified_id"},
    "/v1/privacy/holds/{user_id}": {"user_id": "held_id"},
    "/v1/privacy/requests/{request_id}/lift": {"request_id": "restriction_id"},
    "/v1/runs/{run_id}/replays": {"run_id": "ended_run_id"},
}
"""Parameters that name another kind of thing than the same word elsewhere."""
BREACH = {"summary": "A laptop was stolen.", "discovered_at": "2026-01-01T00:00:00Z"}
BUDGET = {"name": "seed", "period": "day", "unit": "usd", "limit": "1000"}
WEBHOOK = {"url": "http://127.0.0.1:9/hook", "event_types": ["*"]}
LEFT_OUT = {"ticket"}
"""Good for one use, and instead of a credential: tests/integration/edge/test_tickets.py."""


def archive() -> str:
    """A source archive of ASCII characters alone, so that a JSON document can hold it as an example."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("main.py")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"1\n"))
    return buffer.getvalue().decode("ascii")


class Seeds:
    """Makes what requests can name. `spare` has some of each kind for all operations together."""

    def __init__(self, target: Target) -> None:
        self._target, self._runs, self._letters = target, list(target.runs), list(target.letters)
        self._logins: set[str] = set()
        self._newest_webhook = ""
        self._http = target.http(target.log_in())
        self.makers: dict[str, Callable[[], str | int]] = {
            "run_id": self._runs.pop,
            "ended_run_id": lambda: self._target.ended,
            "digest": self._digest,
            "agent_id": self._agent,
            "number": lambda: 3,
            "webhook_id": self._webhook,
            "delivery_id": self._delivery,
            "approval_id": lambda: APPROVAL,
            "event_id": self._audited,
            "level": lambda: "0",
            "tile": lambda: "000.p/1",
            "user_id": self._member,
            "held_id": self._held,
            "request_id": lambda: self._request("access"),
            "certified_id": lambda: self._target.certified,
            "restriction_id": lambda: self._request("restriction"),
            "breach_id": lambda: self._made("/v1/privacy/breaches", json=BREACH)["id"],
            "budget_id": lambda: self._made("/v1/budgets", json={**BUDGET, "name": clock.new_uuid().hex})["id"],
            "tenant_id": lambda: NEIGHBOUR,
            "key_id": self._key,
            "provider": lambda: PROVIDER,
            "credential_id": self._credential,
            "letter_id": self._letters.pop,
            "account_id": lambda: self._account()["id"],
            "login_id": self._login,
            "project_id": self._project,
            "session_id": lambda: self._made("/v1/sessions", json={"project_id": self._project()})["id"],
            "name": lambda: "run.started",
            "version": lambda: "1",
        }
        self.spare = {name: [make() for _ in range(SPARE)] for name, make in self.makers.items()}

    def close(self) -> None:
        self._http.close()

    def _made(self, path: str, **options: Any) -> Document:
        headers = {"Idempotency-Key": str(clock.new_uuid()), "If-Match": "*"}
        return dict(self._http.post(path, headers=headers, **options).raise_for_status().json())

    def _digest(self) -> str:
        return str(self._made("/v1/artifacts", content=archive().encode())["digest"])

    def _key(self) -> str:
        return str(self._made("/v1/api-keys", json={"name": "seed", "scopes": ["runs:read"]})["id"])

    def _credential(self) -> str:
        headers = {"Idempotency-Key": str(clock.new_uuid())}
        path, body = f"/v1/admin/providers/{PROVIDER}/credentials", {"label": "seed", "secret": "s"}
        with self._target.http(self._target.edge.keys.operator) as http:
            return str(http.post(path, json=body, headers=headers).raise_for_status().json()["id"])

    def _account(self) -> Document:
        return self._made("/v1/service-accounts", json={"name": "seed", "scopes": ["runs:read"]})

    def _agent(self) -> str:
        """One with an active version, a former one, a draft, which is the third, and a canary."""
        agent = self._made("/v1/agents", json={"name": f"seed-{clock.new_uuid().hex[-12:]}"})
        versions = f"/v1/agents/{agent['id']}/versions"
        for _ in range(4):
            self._made(versions, json={})
        for number in (1, 2):
            self._made(f"{versions}/{number}/promote")
        self._made(f"{versions}/4/canary", json={})
        return str(agent["id"])

    def _member(self) -> str:
        made = self._made("/v1/members", json={"email": f"{clock.new_uuid().hex}@example.org", "role": "viewer"})
        return str(made["id"])

    def _held(self) -> str:
        """A member under a legal hold."""
        member = self._member()
        self._http.put(f"/v1/privacy/holds/{member}").raise_for_status()
        return member

    def _audited(self) -> str:
        """A line of the audit."""
        found = self._http.get("/v1/audit/events").raise_for_status().json()["items"]
        return str(found[0]["id"])

    def _request(self, kind: str) -> str:
        """A person's, that is being worked on."""
        made = self._made("/v1/privacy/requests", json={"kind": kind, "subject": self._member()})
        path, headers = f"/v1/privacy/requests/{made['id']}", {"If-Match": "*"}
        self._http.patch(path, json={"status": "in_progress"}, headers=headers).raise_for_status()
        return str(made["id"])

    def _webhook(self) -> str:
        self._newest_webhook = str(self._made("/v1/webhooks", json=WEBHOOK)["id"])
        return self._newest_webhook

    def _delivery(self) -> str:
        """Of the webhook that was made last: paths name both."""
        return str(self._made(f"/v1/webhooks/{self._newest_webhook}/test")["id"])

    def _project(self) -> str:
        """One with a repository and a credential for it."""
        order = {"name": f"seed-{clock.new_uuid().hex[-12:]}", "repository": "https://git.example.org/team/shop.git"}
        made = str(self._made("/v1/projects", json=order)["id"])
        headers = {"If-Match": "*"}
        credential = self._http.put(f"/v1/projects/{made}/git-credential", json={"token": "t"}, headers=headers)
        credential.raise_for_status()
        return made

    def _login(self) -> str:
        with self._target.http(self._target.log_in()) as http:
            sessions = http.get("/v1/auth/sessions").raise_for_status().json()["items"]
        made = next(str(session["id"]) for session in sessions if session["current"])
        self._logins.add(made)
        return made

    def bodies(self) -> dict[str, Document]:
        """A request that succeeds for each of these schemas."""
        account, (_, challenge) = self._account(), pkce()
        secret = {"client_id": account["id"], "client_secret": account["client_secret"]}
        return {
            "RunBody": {"task": "Make it work.", "source": {"kind": "archive", "digest": self._digest()}},
            "ReplayBody": {"agent": "coder@1", "until_version": 1},
            "WebhookBody": WEBHOOK,
            "WebhookPatch": {"description": "changed"},
            "MemberBody": {"email": f"{clock.new_uuid().hex}@example.org", "role": "viewer"},
            "PrivacyBody": {"kind": "access", "subject": self._member()},
            "PrivacyPatch": {"status": "completed"},
            "ProjectBody": {"name": "example", "repository": "https://git.example.org/team/shop.git"},
            "SessionBody": {"project_id": self._project()},
            "TicketBody": {"run_id": self.spare["run_id"][0]},
            "AuthorizeBody": {
                "client_id": "cli",
                "email": EMAIL,
                "password": PASSWORD,
                "code_challenge": challenge,
            },
            "TokenForm": {"grant_type": "client_credentials", **secret},
            "RevokeForm": {"token": "crt_unknown", "client_id": "cli"},
            "PasswordBody": {"current_password": PASSWORD, "new_password": "analytical engine no. 1"},
        }

    def planted(self, served: Document, *, bare: bool = False) -> Document:
        """The document with examples that are there: every operation has ids of its own. A `bare` one has nothing that
        may be left out, so that each of its examples succeeds."""
        self.close()
        self._http = self._target.http(self._target.log_in())  # the login before may have been ended by a request
        document = deepcopy(served)
        schemas = document["components"]["schemas"]
        for name, example in self.bodies().items():
            schemas[name]["examples"] = [example]
        for path, item in document["paths"].items():
            for operation in (item[method] for method in METHODS if method in item):
                self._plant(operation, RENAMED.get(path, {}), bare)
        return document

    def _plant(self, operation: Document, renamed: dict[str, str], bare: bool) -> None:
        parameters = operation.get("parameters", [])
        parameters[:] = [
            parameter
            for parameter in parameters
            if parameter["name"] not in LEFT_OUT and (parameter.get("required") or not bare)
        ]
        for parameter in parameters:
            if parameter["in"] == "path":
                kind = renamed.get(parameter["name"], parameter["name"])
                assert kind in self.makers, f"what {kind} names needs a line in `makers`"
                parameter["example"] = self.makers[kind]()
            elif parameter["name"] in HEADERS:
                parameter["example"] = HEADERS[parameter["name"]][0]
        for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
            if media_type == "application/octet-stream":
                body["example"] = archive()

    def bring_up_to_date(self, case: schemathesis.Case) -> None:
        """Replaces what other requests have ended meanwhile: logins, and the password that the document shows; and
        what would end the attack: suspending the attacker."""
        path, body = case.path_parameters, case.body
        if isinstance(path, dict) and path.get("tenant_id") == MINE:
            path["tenant_id"] = NEIGHBOUR
        if isinstance(path, dict) and path.get("session_id") in self._logins:
            path["session_id"] = self._login()
        for name in ("password", "current_password"):
            if isinstance(body, dict) and body.get(name) == PASSWORD:
                body[name] = self._target.password

    def settings(self) -> Document:
        """Dictionaries of schemathesis, and which parameters draw from them."""
        words = {**self.spare, **HEADERS}
        names = {name: name.replace("-", "_").lower() for name in words}
        bound = {
            **{f"path.{name}": names[name] for name in self.spare},
            **{f"header.{name}": names[name] for name in HEADERS},
            "body.source.digest": "digest",
            "body.url": "url",
        }
        known = {names[name]: {"values": values} for name, values in words.items()}
        return {
            "dictionaries": {**known, "url": {"values": [WEBHOOK["url"]]}},
            "operations": [
                {
                    "include-path": path,
                    "parameters": {
                        f"path.{name}": {"dictionary": kind, "probability": 0.7} for name, kind in renamed.items()
                    },
                }
                for path, renamed in RENAMED.items()
            ],
            "parameters": {place: {"dictionary": name, "probability": 0.7} for place, name in bound.items()},
        }
