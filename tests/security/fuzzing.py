"""The contract under attack: schemathesis sends what the served OpenAPI document allows and what it forbids, with
every check that it has, and what was answered is counted."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from hypothesis import strategies
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.core.transport import Response
from schemathesis.engine import events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder
from schemathesis.hooks import unregister
from schemathesis.openapi.checks import MissingHeaderNotRejected, RejectedPositiveData, UseAfterFree

from codeagent.edge.cors import _ANSWER_HEADERS
from codeagent.edge.middleware import ALWAYS
from tests.security.attacked import Target
from tests.security.leaks import leaks
from tests.security.seeds import Seeds

RULES = {
    "unsupported_agent": "the agents are the operator's",
    "unsupported_model": "the models are the operator's",
    "unsupported_tool": "the tools are a list of their own",
    "unsupported_git_url": "which hosts may be fetched from is the operator's, and grammars of URLs are no JSON Schema",
    "unsupported_image": "the images are the operator's",
    "unsupported_webhook_url": "as above",
    "unsupported_git_ref": "git's rules for names are no JSON Schema",
    "unsupported_event_type": "the catalogue of events is a document of its own",
    "unknown_artifact": "it names something that is not there",
    "unknown_project": "as above",
    "unknown_session": "as above",
    "project_mismatch": "the session's project goes with it",
    "source_not_allowed": "the session has files already",
    "conversation_not_whole": "it depends on what the run has done",
    "idempotency_key_reused": "it goes with another body",
    "idempotency_key_malformed": "RFC 9651 strings are no JSON Schema",
    "malformed_cursor": "cursors are opaque",
    "cursor_past_head": "it names something that is not there",
    "unknown_subject": "it names somebody who is not there",
    "weak_password": "what is guessed first is no JSON Schema",
    "unsupported_delegate": "an agent is there once, whatever its version",
    "delegation_cycle": "which agents there are, and whom they name, is the operator's",
    "delegation_too_deep": "as above",
    "delegation_too_large": "as above",
    "unsupported_mcp_server": "which servers there are is the operator's",
    "unsupported_mcp_tool": "the name that models call a tool by has a length, and servers are there once",
    "egress_refused": "which hosts commands may reach is the operator's",
    "unsupported_bound": "what a bound may be depends on its metric",
    "unsupported_host": "rules of names of hosts are no JSON Schema",
    "limit_exceeded": "how much it may be is the operator's",
    "wrong_password": "it has to be the caller's",
    "own_password": "it has to be somebody else's",
    "archive_unreadable": "the bytes have to be an archive",
    "precondition_required": "an empty If-Match is none",
    "version_mismatch": "the state has moved on",
    "nul_character": "every text but none in particular, so that each schema would have to say it",
    "invalid_state_transition": "the state does not permit it",
    "invalid_grant": "the grant has to be there",
    "invalid_scope": "scopes are words in one string",
    "access_denied": "the password has to be the user's",
    "invalid_request": "what a grant takes depends on the grant, and the client may stand in a header instead",
    "unsupported_grant_type": "RFC 6749 has an error of its own for it",
}
"""Codes of refusals of what fits the schema, and why the schema cannot say so."""
PLACES = {
    "POST /v1/runs": {"/source": "the session or the project of a run may have it"},
    "POST /v1/sessions/{session_id}/messages": {"/source": "as above"},
    "POST /v1/members": {"/email": "grammars of addresses are no JSON Schema"},
    "POST /v1/api-keys": {"/expires_at": "how long keys live is the operator's"},
    "POST /v1/api-keys/{key_id}/rotate": {"/expires_at": "as above"},
    "POST /v1/webhooks": {
        "/event_types/*": "names of events are a list of their own",
        "/event_types": "those that are no names do not count",
    },
    "PATCH /v1/webhooks/{webhook_id}": {"/event_types/*": "as above", "/event_types": "as above"},
    "POST /v1/agents/{agent_id}/versions": {
        "/mcp/*/tools/*/input_schema": "it is JSON that every program can read",
        "/mcp/*/tools": "it has none but those that can be read",
    },
    "POST /v1/budgets": {"/": "a scope has its id or has none, and tokens are whole"},
    "PATCH /v1/budgets/{budget_id}": {"/limit": "tokens are whole"},
    "POST /v1/privacy/breaches": {"/discovered_at": "it is not yet to come"},
    "PATCH /v1/privacy/breaches/{breach_id}": {"/": "a change has to change something, and null changes nothing"},
    "PATCH /v1/privacy/requests/{request_id}": {
        "/status": "a change has to change something",
        "/reason": "what of it has to be there depends on the rest",
        "/due_at": "it is later than it was, and not much",
    },
    "GET /v1/audit/verify": {"query:run_id": "one of two parameters has to be there"},
    "GET /v1/audit/consistency": {"query:to": "two sizes have to go together, and with the log"},
    "GET /v1/audit/events": {"query:until": "two moments have to go together"},
    "GET /v1/audit/export": {"query:until": "as above"},
    "GET /v1/usage": {"query:from": "two days have to go together", "query:to": "as above"},
}
"""Fields that operations refuse with no code of their own, though they fit the schema, and why it cannot say so."""

OPERATORS = ("/v1/admin/", "/v1/audit/log/")
"""Paths that take an operator's key."""
ALONE = ("examples",)
KEPT = {
    "/v1/agents/{agent_id}": "it is archived: runs name its versions",
    "/v1/api-keys/{key_id}": "it is revoked, and listed as such",
    "/v1/projects/{project_id}": "it is archived: runs name it",
    "/v1/sessions/{session_id}": "it is closed: its runs are there",
}
"""What a DELETE ends and leaves to be seen, and why. A repeat changes nothing, so that it may come without If-Match."""
HEADERS = {
    *(name.lower() for name in _ANSWER_HEADERS),
    *(name.decode() for name, _ in ALWAYS),
    *("content-type", "content-length", "content-encoding", "content-disposition", "content-range", "accept-ranges"),
    *("transfer-encoding", "connection", "date", "cache-control", "vary", "allow"),
}
"""All that answers may carry: those that pages can read, those of every answer, and those of HTTP itself. No cookie."""
schemathesis.openapi.format("ip-network", strategies.ip_addresses().map(str))


@dataclass
class Figures:
    """What was tried and answered. `statuses` by operation; `failures` by operation, check and status, with a sample."""

    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    failures: dict[tuple[str, str, int], str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return sum(sum(counts.values()) for counts in self.statuses.values())

    @property
    def never_succeeded(self) -> list[str]:
        """Operations that no case has reached a 2xx of."""
        return sorted(
            operation
            for operation, counts in self.statuses.items()
            if not any(200 <= status < 300 for status in counts)
        )

    def add(self, recorder: ScenarioRecorder) -> None:
        for case_id, interaction in recorder.interactions.items():
            status = 0 if interaction.response is None else interaction.response.status_code
            label = recorder.cases[case_id].value.operation.label
            self.statuses[label][status] += 1
            for wrong, sample in beside_the_document(interaction.response):
                self.failures.setdefault((label, wrong, status), sample)
            for check in recorder.checks.get(case_id, ()):
                if check.failure_info is not None:
                    body = b"" if interaction.response is None else interaction.response.content[:500]
                    sample = f"{check.failure_info.failure.message}\n{check.failure_info.code_sample[:1_000]}\n{body!r}"
                    self.failures.setdefault((label, check.name, status), sample)


def campaign(target: Target, seeds: Seeds, *, phases: Sequence[str], examples: int, seed: int, into: Figures) -> None:
    """One run of the engine; blocks until it is over. `examples` is the number of drawn cases an operation. The phase
    `examples` alone sends what succeeds."""
    with target.http() as http:
        served = http.get("/openapi.json").raise_for_status().json()
    schema = schemathesis.openapi.from_dict(
        seeds.planted(served, bare=phases == ALONE), config=_config(target, seeds, phases, examples, seed)
    )
    schema.auth(retry_on=[401])(_login(target))
    schema.hook(filter_failure)
    schema.hook("after_call")(_remember_password(target))

    def before_call(context: Any, case: schemathesis.Case, kwargs: Any) -> None:
        seeds.bring_up_to_date(case)

    schemathesis.hook(before_call)
    try:
        for event in from_schema(schema).execute():
            if isinstance(event, events.ScenarioFinished):
                into.add(event.recorder)
            elif isinstance(event, events.NonFatalError):
                into.errors.append(f"{event.label}: {event.value}")
            elif isinstance(event, events.FatalError):
                raise event.exception
    finally:
        unregister(before_call)


def _config(target: Target, seeds: Seeds, phases: Sequence[str], examples: int, seed: int) -> SchemathesisConfig:
    known = ("examples", "coverage", "fuzzing", "stateful")
    return SchemathesisConfig.from_dict(
        {
            "base-url": target.url,
            "seed": seed,
            "continue-on-failure": True,
            "request-timeout": 20,
            "workers": 1,
            "generation": {"max-examples": examples, "no-shrink": True, "database": "none"},
            "phases": {name: {"enabled": name in phases} for name in known} | {"examples": _examples(phases)},
            "checks": {"missing_required_header": {"expected-statuses": [400, 401, 403, 406, 415, 422, 428]}},
            **({} if phases == ALONE else seeds.settings()),
        }
    )


def _examples(phases: Sequence[str]) -> dict[str, Any]:
    # Alone they are what was planted, and no ids that answers have told.
    alone = phases == ALONE
    return {"enabled": "examples" in phases, "fill-missing": alone, "extra-data-sources": {"responses": not alone}}


def _login(target: Target) -> type[schemathesis.AuthProvider[str]]:
    class Login:
        """Logs in again when the login has ended, which some operations do. Operators come with their key."""

        def get(self, case: Any, ctx: Any) -> str:
            return target.log_in()

        def set(self, case: Any, data: str, ctx: Any) -> None:
            operators = case.operation.path.startswith(OPERATORS)
            case.headers["Authorization"] = f"Bearer {target.edge.keys.operator if operators else data}"

    return Login


def _remember_password(target: Target) -> Callable[[Any, schemathesis.Case, Response], None]:
    """The owner's password is what the last change of it has made it."""

    def after_call(context: Any, case: schemathesis.Case, response: Response) -> None:
        if response.status_code == 204 and case.operation.path == "/v1/auth/password":
            target.password = str(case.body["new_password"])

    return after_call


def filter_failure(context: Any, failure: Failure, case: Any, response: Response) -> bool:
    """Leaves out what no document can say: a refusal by a rule that is no schema, what can be seen after its end, and a
    body that the client did not want."""
    if isinstance(failure, RejectedPositiveData):
        return not excused(response, PLACES.get(case.operation.label, {}))
    if isinstance(failure, UseAfterFree):
        return not case.operation.path.startswith(tuple(KEPT))
    if isinstance(failure, (AcceptedNegativeData, MissingHeaderNotRejected)) and case.method == "DELETE":
        return case.operation.path not in KEPT or bool(case.headers.get("If-Match"))
    return bool(response.content) or "return=minimal" not in response.headers.get("preference-applied", [""])[0]


def beside_the_document(response: Response | None) -> Iterator[tuple[str, str]]:
    """What no answer may be or hold, whatever the document says of it."""
    if response is None:
        yield "no answer", ""
        return
    if response.status_code >= 400 and (told := leaks(response.content)):
        yield "tells of the inside", f"{told} in {response.content[:500]!r}"
    for name in response.headers.keys() - HEADERS:
        yield f"header {name}", str(response.headers[name])


def excused(response: Response, places: Collection[str]) -> bool:
    """Whether a refusal says by its code, or OAuth's error, or by all the fields that it names, that a rule is behind
    it."""
    try:
        body = json.loads(response.content)
    except ValueError:
        return False
    if not isinstance(body, dict):
        return False
    fields = body.get("errors", ())
    return (body.get("code") or body.get("error")) in RULES or (
        bool(fields)
        and all(each["code"] in RULES or re.sub(r"/\d+\b", "/*", each["pointer"]) in places for each in fields)
    )
