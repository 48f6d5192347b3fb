"""Where this system keeps data of persons: each table, and each field of a message with content of theirs, with what it
is for, of which kind it is and how long it stays.

The record of processing activities (Art. 30) is made from this list, and it says what an export holds and what an
erasure does. A test holds it against the database: a table that is not in it fails.
"""

from __future__ import annotations

from dataclasses import dataclass

ID_ONLY = "the pseudonymous id alone"


@dataclass(frozen=True, slots=True)
class Holding:
    """`columns` are those with a user's id. `section` is where an export shows it, None where it does not, for the
    reason in `erasure`."""

    table: str
    columns: tuple[str, ...]
    purpose: str
    categories: tuple[str, ...]
    retention: str
    erasure: str
    section: str | None = None


@dataclass(frozen=True, slots=True)
class MessageField:
    """A field of a fact that may hold what a person has written."""

    message: str
    field: str
    purpose: str
    category: str
    retention: str


_LIFE = "as long as the account"
_RUNS = "as long as the run is kept"
_LOG = "as long as the event log is kept"

HOLDINGS: tuple[Holding, ...] = (
    Holding(
        "users",
        ("id",),
        "telling users apart and letting them in",
        ("e-mail address, sealed", "role"),
        _LIFE,
        "address overwritten; the id stays, so that facts keep their author",
        "user",
    ),
    Holding(
        "passwords",
        ("user_id",),
        "letting users in",
        ("password hash",),
        "until another is chosen",
        "removed; not exported: it would serve an attacker alone",
    ),
    Holding(
        "login_sessions",
        ("user_id",),
        "keeping users logged in, and showing them where",
        ("times of use", "network, as a digest"),
        "30 days from the login at most",
        "removed",
        "sessions",
    ),
    Holding(
        "authorization_codes",
        ("user_id",),
        "finishing a login",
        (ID_ONLY,),
        "a day",
        "removed; not exported: gone in a day",
    ),
    Holding(
        "api_keys",
        ("principal_id", "created_by"),
        "letting programs act for a user",
        ("name", "networks", "time of last use"),
        "kept after its end, for the audit",
        "revoked; name, networks and digest overwritten",
        "api_keys",
    ),
    Holding(
        "fact_origins",
        (),
        "telling from where something was done, for security",
        ("network address",),
        "180 days",
        "removed",
        "audit",
    ),
    Holding(
        "audit_events",
        ("actor_id", "resource_id"),
        "telling who did what (accountability)",
        (ID_ONLY,),
        _LOG,
        "kept: proof of who was responsible",
        "audit",
    ),
    Holding(
        "events",
        ("stream_id", "metadata", "data"),
        "the record of everything that happened",
        ("tasks and messages of runs", ID_ONLY),
        _LOG,
        "kept, and named in the result as what remains",
        "audit and runs",
    ),
    Holding(
        "runs",
        (),
        "the list of runs",
        ("beginning of the task",),
        _RUNS,
        "kept, and named in the result as what remains",
        "runs",
    ),
    Holding(
        "submissions",
        (),
        "recognising repeated requests",
        ("task",),
        "a day once the run is in the log",
        "goes by itself; not exported: the run says the same",
    ),
    Holding(
        "stream_tickets",
        ("principal",),
        "opening streams from browsers",
        (ID_ONLY,),
        "a minute",
        "removed; not exported: gone in a minute",
    ),
    Holding(
        "agents",
        ("created_by",),
        "telling who made an agent of the tenant's",
        (ID_ONLY,),
        "as long as the agent",
        "kept: nothing leads from the id to a person any more",
        "audit",
    ),
    Holding(
        "agent_versions",
        ("created_by",),
        "telling who made a version of an agent",
        (ID_ONLY,),
        "as long as the agent",
        "kept: nothing leads from the id to a person any more",
        "audit",
    ),
    Holding(
        "projects",
        ("created_by",),
        "telling who made a project of the tenant's",
        (ID_ONLY,),
        "as long as the project",
        "kept: nothing leads from the id to a person any more",
        "audit",
    ),
    Holding(
        "sessions",
        ("created_by",),
        "going on from earlier runs",
        ("title",),
        "as long as the tenant",
        "title overwritten",
        "conversations",
    ),
    Holding(
        "usage_runs",
        ("principal_id",),
        "adding up what runs use",
        (ID_ONLY,),
        _RUNS,
        "kept: nothing leads from the id to a person any more",
        "usage",
    ),
    Holding(
        "usage_by_day",
        ("principal_id",),
        "telling what was used, and by whom",
        (ID_ONLY,),
        "as long as the tenant",
        "kept: nothing leads from the id to a person any more",
        "usage",
    ),
    Holding(
        "budgets",
        ("scope_id",),
        "bounding what is spent",
        (ID_ONLY,),
        "until it is deleted",
        "kept: nothing leads from the id to a person any more",
        "budgets",
    ),
    Holding(
        "privacy_requests",
        ("subject_id", "created_by"),
        "answering requests of persons (Art. 12)",
        ("what they asked for",),
        "kept as proof",
        "kept: proof that it was answered",
        "privacy_requests",
    ),
    Holding(
        "privacy_breaches",
        ("created_by",),
        "recording breaches (Art. 33(5))",
        (ID_ONLY,),
        "kept as proof",
        "kept; not exported: it is about the tenant",
    ),
    Holding(
        "outbox",
        ("headers", "value"),
        "commands on their way to workers",
        ("task",),
        "until the worker has taken it",
        "goes by itself; not exported: the run says the same",
    ),
    Holding(
        "effects",
        ("command",),
        "model calls and commands at work",
        ("content of a run",),
        "until the answer is handled",
        "goes by itself; not exported: the run says the same",
    ),
)

NOTHING_PERSONAL: dict[str, str] = {
    "alembic_version": "the schema's version",
    "projections": "places in the log",
    "tenants": "organisations",
    "refresh_tokens": "digests, reached through login_sessions and removed with them",
    "service_accounts": "programs",
    "signing_keys": "keys of the installation",
    "instance_secrets": "keys of the installation",
    "login_throttles": "keyed digests, gone in a day",
    "git_credentials": "secrets of projects, under names of accounts elsewhere",
    "placements": "which run belongs to which project and session",
    "usage_by_run": "figures of runs; whose they are is in usage_runs",
    "webhooks": "addresses of programs of the tenant",
    "webhook_deliveries": "which event went to which program",
    "webhook_attempts": "how that went",
    "revocations": "ids of credentials, gone in a day",
    "artifact_references": "which artifacts the log names",
    "sandbox_quotas": "what tenants may use",
    "sandbox_reservations": "what commands under way may use",
}
"""Tables without data of persons, and what is in them."""

MESSAGE_FIELDS: tuple[MessageField, ...] = (
    MessageField("run.submitted", "task", "having an agent do it", "what the user wrote", _LOG),
    MessageField("run.submitted", "history", "going on from earlier runs", "what the user wrote before", _LOG),
    MessageField("run.input_received", "comment", "telling the agent why", "what the user wrote", _LOG),
    MessageField("message.completed", "text", "the agent's work", "may repeat what the user wrote", _LOG),
    MessageField("tool.call.completed", "output", "the agent's work", "may hold what is in the repository", _LOG),
    MessageField("run.cancel_requested", "reason", "telling why", "what the user wrote", _LOG),
    MessageField("run.completed", "message", "the run's result", "may repeat what the user wrote", _LOG),
    MessageField("api_key.created", "name", "telling keys apart", "what the user wrote", _LOG),
    MessageField("api_key.created", "networks", "binding keys to networks", "network addresses", _LOG),
    MessageField("service_account.created", "name", "telling accounts apart", "what the user wrote", _LOG),
    MessageField("project.created", "settings", "what runs of a project have in common", "what the user wrote", _LOG),
    MessageField("project.updated", "settings", "what runs of a project have in common", "what the user wrote", _LOG),
    MessageField("budget.created", "name", "telling budgets apart", "what the user wrote", _LOG),
    MessageField("budget.changed", "name", "telling budgets apart", "what the user wrote", _LOG),
    MessageField("agent.created", "name", "telling agents apart", "what the user wrote", _LOG),
    MessageField("agent.created", "description", "telling what an agent is for", "what the user wrote", _LOG),
    MessageField("agent.updated", "description", "telling what an agent is for", "what the user wrote", _LOG),
    MessageField("agent.version_created", "instructions", "the agent's work", "what the user wrote", _LOG),
)
