"""Where this system keeps data of persons: each table, with what it is for, of which kind it is and how long it stays.

The record of processing activities (Art. 30) is made from this list and that of `message_fields`, and it says what an
export holds and what an erasure does. A test holds it against the database: a table that is neither in it nor in
`nothing_personal` fails.
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


_RUNS = "as long as the run is kept"
AS_LONG_AS_THE_LOG = "as long as the event log is kept"

HOLDINGS: tuple[Holding, ...] = (
    Holding(
        "users",
        ("id",),
        "telling users apart and letting them in",
        ("e-mail address, sealed", "role"),
        "as long as the account",
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
        "revoked; name, networks and digests overwritten",
        "api_keys",
    ),
    Holding(
        "fact_origins",
        ("actor_id",),
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
        AS_LONG_AS_THE_LOG,
        "kept: proof of who was responsible",
        "audit",
    ),
    Holding(
        "events",
        ("stream_id", "metadata", "data"),
        "the record of everything that happened",
        ("tasks and messages of runs, sealed", ID_ONLY),
        f"{AS_LONG_AS_THE_LOG}; content of runs as long as CODEAGENT_RUN_CONTENT_DAYS says",
        "the key of the content shredded, the content removed; that something was done, and when, stays",
        "runs, written_elsewhere and audit",
    ),
    Holding(
        "runs",
        (),
        "the list of runs",
        (ID_ONLY,),
        _RUNS,
        "kept: figures and states; tasks are read from the log",
        "runs",
    ),
    Holding(
        "submissions",
        (),
        "recognising repeated requests",
        ("task, sealed",),
        "a day once the run is in the log",
        "removed; not exported: the run says the same",
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
        "provider_credentials",
        ("created_by",),
        "telling which operator stored a provider's key",
        (ID_ONLY,),
        "as long as the installation",
        "kept; not exported: it is about the installation",
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
        ("title, sealed",),
        "as long as the tenant",
        "title and its digest overwritten",
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
        "call_reservations",
        ("principal_id",),
        "holding model calls to budgets",
        (ID_ONLY,),
        "until the call is counted, or an hour",
        "goes by itself; not exported: gone with the call",
    ),
    Holding(
        "privacy_requests",
        ("subject_id", "created_by"),
        "answering requests of persons (Art. 12)",
        ("what they asked for, sealed",),
        "kept as proof",
        "what was written in it overwritten; that it was answered is kept as proof",
        "privacy_requests",
    ),
    Holding(
        "erasures",
        ("subject_id",),
        "going on with erasures, and proving them (Art. 5(2))",
        (ID_ONLY,),
        "kept as proof",
        "kept: nothing leads from the id to a person any more; not exported: there is nothing left to export",
    ),
    Holding(
        "legal_holds",
        ("subject_id", "created_by"),
        "keeping what a law or a court wants kept (Art. 17(3))",
        (ID_ONLY,),
        "until it is lifted",
        "an erasure waits for its end; not exported: the subject might be warned by it",
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
        "response_cache",
        ("principal_id",),
        "answering a request to a model again, where an agent's version wants that",
        ("replies to runs, sealed", ID_ONLY),
        "30 days at most",
        "removed; not exported: the runs say the same",
    ),
    Holding(
        "snapshots",
        (),
        "showing long runs without reading all of them again",
        ("content of a run, sealed",),
        "30 days after the run's last event that it has",
        "removed; not exported: the run says the same",
    ),
    Holding(
        "outbox",
        ("headers", "value"),
        "commands on their way to workers",
        ("task, sealed",),
        "until the worker has taken it",
        "removed; not exported: the run says the same",
    ),
    Holding(
        "dead_letters",
        ("headers", "author_id", "settled_by"),
        "finding out why a message could not be handled, and sending it again",
        ("content of a run, or an order for one, sealed", ID_ONLY),
        "30 days, or until an operator discards it",
        "removed; not exported: what was handled of it, the run says",
    ),
    Holding(
        "effects",
        ("command",),
        "model calls and commands at work",
        ("content of a run, sealed",),
        "until the answer is handled",
        "removed; not exported: the run says the same",
    ),
)
