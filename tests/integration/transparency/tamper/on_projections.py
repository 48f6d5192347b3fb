"""The attacks on what is kept from a log of three runs, two of `ten_test` and one of `ten_other`, and of a key.

Run 1 is usr_a's and has completed, run 2 is usr_b's and has failed, run 3 is usr_c's of the other tenant and has completed.
All of that is in the rows; the submission of run 4, which is the log's last event, is in none yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from codeagent import clock
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import prepare
from codeagent.messages import events
from codeagent.messages.envelope import Event
from codeagent.messages.ids import typed_id
from codeagent.messages.key_events import ApiKeyCreated
from codeagent.projections.catalog import PROJECTIONS
from codeagent.projections.verification import Code
from codeagent.transparency.findings import Code as LogCode
from tests.integration.projections.logs import (
    DAY,
    TENANT,
    Happened,
    append,
    call,
    caught_up,
    execution,
    noon,
    submitted,
    write,
)
from tests.integration.transparency.tamper.attack import Attack

OTHER = "ten_other"
KEY = typed_id("key", UUID(int=7))
PATCH = "a" * 64


def run(number: int) -> str:
    return typed_id("run", UUID(int=number))


def story(number: int, person: str, tenant: str = TENANT) -> Sequence[Happened]:
    run_id, says = run(number), f"see sha256:{PATCH}"
    facts: Sequence[Event] = (
        submitted(run_id, person, "acme/large", Decimal(1), project_id="prj_1", session_id="ses_1"),
        events.RunStarted(),
        call(run_id, "acme/large", cost="0.25"),
        execution(run_id),
        events.RunFailed(status_reason="stuck", message=says) if number == 2 else events.RunCompleted(message=says),
    )
    return [Happened(run_id, fact, tenant_id=tenant, seconds=second) for second, fact in enumerate(facts)]


async def make_log(database: Database) -> None:
    """The log, and all that is kept from it."""
    for number, person, tenant in ((1, "usr_a", TENANT), (2, "usr_b", TENANT), (3, "usr_c", OTHER)):
        await write(database, story(number, person, tenant))
    made = ApiKeyCreated(key_id=KEY, principal="usr_a", name="ci", scopes=("runs:read",), expires_at=noon(DAY))
    key = prepare(
        made,
        stream_id=f"api_key-{KEY}",
        version=1,
        event_id=UUID(int=7),
        tenant_id=TENANT,
        occurred_at=noon(DAY),
        metadata={"correlationid": str(clock.new_uuid()), "authtype": "user", "authid": "usr_a"},
    )
    await append(database, key)
    for kind in PROJECTIONS.values():
        await caught_up(database, kind(database, EventLog(database)))
    await write(database, story(4, "usr_a")[:1])


def place(name: str, event: str) -> str:
    """Moves a projection's place to that of an event."""
    return (
        f"UPDATE projections SET (transaction_id, global_position) = (SELECT transaction_id, global_position FROM events "
        f"{event}) WHERE name = '{name}'"
    )


BY_DAY = f"{TENANT} {DAY} acme/large prj_1"
SESSION = f"{TENANT} ses_1"
BEYOND = "UPDATE projections SET global_position = global_position + 1000 WHERE name = "
NEWEST, FIRST = (f"ORDER BY global_position {order} LIMIT 1" for order in ("DESC", "ASC"))
BY_KEY = "FROM usage_by_day WHERE principal_id = 'usr_a'"
CHANGED, MISSING, SURPLUS = Code.ROW_CHANGED, Code.ROW_MISSING, Code.ROW_SURPLUS

ON_PROJECTIONS = (
    # the list of runs
    Attack("outcome of a run", f"UPDATE runs SET status = 'failed' WHERE run_id = '{run(1)}'", [(CHANGED, f"row {run(1)} of runs of runs: the log says otherwise: status")]),
    Attack("model of a run", f"UPDATE runs SET model = 'free/of-charge' WHERE run_id = '{run(1)}'", [(CHANGED, f"{run(1)} of runs of runs: the log says otherwise: model")]),
    Attack("run hidden", f"DELETE FROM runs WHERE run_id = '{run(2)}'", [(MISSING, f"row {run(2)} of runs")]),
    Attack("run given to another tenant", f"UPDATE runs SET tenant_id = 'ten_other' WHERE run_id = '{run(1)}'", [(CHANGED, f"{run(1)} of runs of runs: the log says otherwise: tenant_id")]),
    Attack("another tenant's run in a session", f"UPDATE runs SET session_id = 'ses_x', tenant_id = '{TENANT}' WHERE run_id = '{run(3)}'", [(CHANGED, f"{run(3)} of runs of runs: the log says otherwise: session_id, tenant_id")]),
    Attack("run that never was", f"INSERT INTO runs SELECT * FROM jsonb_populate_record((SELECT r FROM runs r WHERE run_id = '{run(1)}'), '{{\"run_id\": \"run_x\"}}')", [(SURPLUS, "row run_x of runs")]),
    Attack("two runs exchanged", f"UPDATE runs r SET run_id = 'run_x' WHERE run_id = '{run(1)}'; UPDATE runs SET run_id = '{run(1)}' WHERE run_id = '{run(2)}'; UPDATE runs SET run_id = '{run(2)}' WHERE run_id = 'run_x'", [(CHANGED, f"row {run(1)} of runs"), (CHANGED, f"row {run(2)} of runs")]),
    Attack("version ahead, so that what comes is passed over", f"UPDATE runs SET version = 99 WHERE run_id = '{run(1)}'", [(CHANGED, "the log says otherwise: version")]),
    Attack("all runs", "TRUNCATE runs", [(MISSING, f"row {run(number)} of runs") for number in (1, 2, 3)]),
    # usage
    Attack("cost of a day lowered", "UPDATE usage_by_day SET cost_usd = 0.01 WHERE principal_id = 'usr_a'", [(CHANGED, f"row {BY_DAY} usr_a of usage_by_day of usage: the log says otherwise: cost_usd")]),
    Attack("cost lowered by less than a float can hold", "UPDATE usage_by_day SET cost_usd = cost_usd - 0.00000000000000000001 WHERE principal_id = 'usr_a'", [(CHANGED, f"row {BY_DAY} usr_a of usage_by_day of usage: the log says otherwise: cost_usd")]),
    Attack("day of somebody gone", f"DELETE {BY_KEY}", [(MISSING, f"row {BY_DAY} usr_a of usage_by_day")]),
    Attack("day moved to somebody else", "UPDATE usage_by_day SET principal_id = 'usr_x' WHERE principal_id = 'usr_a'", [(MISSING, f"{BY_DAY} usr_a of"), (SURPLUS, f"{BY_DAY} usr_x of")]),
    Attack("day out of its project", "UPDATE usage_by_day SET project_id = NULL WHERE principal_id = 'usr_a'", [(MISSING, f"{BY_DAY} usr_a of"), (SURPLUS, "acme/large - usr_a of")]),
    Attack("day counted twice", ("ALTER TABLE usage_by_day DROP CONSTRAINT usage_by_day_key", f"INSERT INTO usage_by_day SELECT * {BY_KEY}"), [(SURPLUS, f"row {BY_DAY} usr_a of usage_by_day")]),
    Attack("calls of a run", f"UPDATE usage_by_run SET calls = 0 WHERE run_id = '{run(1)}'", [(CHANGED, f"row {run(1)} {DAY} acme/large of usage_by_run of usage: the log says otherwise: calls")]),
    Attack("limit of a run raised", f"UPDATE usage_runs SET max_cost_usd = 1000 WHERE run_id = '{run(1)}'", [(CHANGED, f"row {run(1)} of usage_runs of usage: the log says otherwise: max_cost_usd")]),
    Attack("run opened again", f"UPDATE usage_runs SET open = true WHERE run_id = '{run(1)}'", [(CHANGED, "of usage_runs of usage: the log says otherwise: open")]),
    Attack("runs that begin closed", ("ALTER TABLE usage_runs ALTER open SET DEFAULT false", "UPDATE usage_runs SET open = true"), [(CHANGED, f"row {run(number)} of usage_runs of usage: the log says otherwise: open") for number in (1, 2, 3)]),
    # sessions
    Attack("cost of a session lowered", "UPDATE session_totals SET cost_usd = 0.01 WHERE tenant_id = 'ten_test'", [(CHANGED, f"row {SESSION} of session_totals of sessions: the log says otherwise: cost_usd")]),
    Attack("failure of a session made a success", "UPDATE session_totals SET runs_failed = 0, runs_completed = 2 WHERE tenant_id = 'ten_test'", [(CHANGED, f"row {SESSION} of session_totals of sessions: the log says otherwise: runs_completed, runs_failed")]),
    Attack("last run of a session that succeeded", "UPDATE session_totals SET last_run_status = 'completed' WHERE tenant_id = 'ten_test'", [(CHANGED, f"row {SESSION} of session_totals of sessions: the log says otherwise: last_run_status")]),
    Attack("run before put in the place of the last", f"UPDATE session_totals SET last_run_id = '{run(1)}', last_run_status = 'completed' WHERE tenant_id = 'ten_test'", [(CHANGED, "the log says otherwise: last_run_id, last_run_status")]),
    Attack("session that was at work later", "UPDATE session_totals SET last_active_at = last_active_at + interval '1 day' WHERE tenant_id = 'ten_test'", [(CHANGED, "of session_totals of sessions: the log says otherwise: last_active_at")]),
    Attack("session hidden", "DELETE FROM session_totals WHERE tenant_id = 'ten_test'", [(MISSING, f"row {SESSION} of session_totals")]),
    Attack("session shown to another tenant", "UPDATE session_totals SET session_id = 'ses_2', tenant_id = 'ten_other' WHERE tenant_id = 'ten_test'", [(MISSING, f"row {SESSION} of"), (SURPLUS, f"row {OTHER} ses_2 of")]),
    Attack("run moved to another session, sums and all", (f"UPDATE session_runs SET session_id = 'ses_2' WHERE run_id = '{run(2)}'", "UPDATE session_totals SET session_id = 'ses_2' WHERE tenant_id = 'ten_test'"), [(CHANGED, f"row {run(2)} of session_runs of sessions: the log says otherwise: session_id"), (MISSING, f"row {SESSION} of"), (SURPLUS, f"row {TENANT} ses_2 of")]),
    Attack("run of a session that never was", f"INSERT INTO session_runs SELECT * FROM jsonb_populate_record((SELECT r FROM session_runs r WHERE run_id = '{run(1)}'), '{{\"run_id\": \"run_x\"}}')", [(SURPLUS, "row run_x of session_runs")]),
    Attack("all sessions", "TRUNCATE session_runs, session_totals", [*((MISSING, f"row {run(number)} of session_runs") for number in (1, 2, 3)), (MISSING, f"row {SESSION} of session_totals"), (MISSING, f"row {OTHER} ses_1 of session_totals")]),
    Attack("place behind, so that sessions count twice", place("sessions", FIRST), [(CHANGED, f"row {SESSION} of session_totals"), (SURPLUS, f"row {run(2)} of session_runs")]),
    # agents' statistics
    Attack("failure excused", f"UPDATE agent_runs SET outcome = 'excused' WHERE run_id = '{run(2)}'", [(CHANGED, f"row {run(2)} of agent_runs of agent_runs: the log says otherwise: outcome")]),
    Attack("run counted for another version", f"UPDATE agent_runs SET agent_version = 2, calls = 9 WHERE run_id = '{run(2)}'", [(CHANGED, "the log says otherwise: agent_version, calls")]),
    Attack("run that does not count", f"DELETE FROM agent_runs WHERE run_id = '{run(2)}'", [(MISSING, f"row {run(2)} of agent_runs")]),
    # the audit
    Attack("act hidden", f"DELETE FROM audit_events WHERE event_id = '{UUID(int=7)}'", [(MISSING, f"row {UUID(int=7)} of audit_events of audit")]),
    Attack("act in another's name", f"UPDATE audit_events SET actor_id = 'usr_b' WHERE event_id = '{UUID(int=7)}'", [(CHANGED, f"row {UUID(int=7)} of audit_events of audit: the log says otherwise: actor_id")]),
    Attack("act hidden from its tenant", f"UPDATE audit_events SET tenant_id = '{OTHER}' WHERE event_id = '{UUID(int=7)}'", [(CHANGED, "the log says otherwise: tenant_id")]),
    Attack("act at another time", f"UPDATE audit_events SET occurred_at = occurred_at - interval '1 day' WHERE event_id = '{UUID(int=7)}'", [(CHANGED, "the log says otherwise: occurred_at")]),
    Attack("act that never was", f"INSERT INTO audit_events VALUES ('{UUID(int=8)}', '{TENANT}', now(), 'user', 'usr_b', 'api_key.created', 'api_key', 'key_x', 'success')", [(SURPLUS, f"row {UUID(int=8)} of audit_events")]),
    Attack("denial in place of a success", f"UPDATE audit_events SET outcome = 'denied' WHERE event_id = '{UUID(int=7)}'", [(CHANGED, "the log says otherwise: outcome")]),
    Attack("act hidden, with its event", (f"DELETE FROM audit_events WHERE event_id = '{UUID(int=7)}'", f"DELETE FROM events WHERE event_id = '{UUID(int=7)}'"), [(LogCode.EVENT_DELETED, f"event {UUID(int=7)}"), *((Code.PLACE_WRONG, f"place of {name}: ") for name in PROJECTIONS)]),
    # artifacts that are named, and stay
    Attack("artifact let go", f"DELETE FROM artifact_references WHERE (tenant_id, digest) = ('{TENANT}', '\\x{PATCH}')", [(MISSING, f"row {TENANT} \\x{PATCH} ")]),
    Attack("artifact held", f"INSERT INTO artifact_references VALUES ('{TENANT}', '\\x00')", [(SURPLUS, f"row {TENANT} \\x00 ")]),
    # where a projection is in the log
    Attack("place beyond the log's end", f"{BEYOND}'audit'", [(Code.PLACE_WRONG, "place of audit: ")]),
    Attack("place of who sends webhooks beyond the log's end", "UPDATE projections SET (transaction_id, global_position) = ('999999', 999) WHERE name = 'webhooks'", [(Code.PLACE_WRONG, "place of webhooks: f423f-3e7 is that of no event")]),
    Attack("place ahead, so that an act is passed over", place("audit", NEWEST), [(MISSING, "of audit_events of audit")]),
    Attack("place ahead, so that a run is passed over", place("runs", NEWEST), [(MISSING, f"row {run(4)} of runs")]),
    Attack("place behind, so that usage counts twice", place("usage", FIRST), [(CHANGED, f"row {run(1)} of usage_runs"), (SURPLUS, f"row {run(2)} of usage_runs")]),
    Attack("place behind, so that rows are ahead of it", place("artifact_references", FIRST), [(SURPLUS, f"{run(2)} of artifact_references of artifact_references")]),
    Attack("place gone, so that usage counts twice", "DELETE FROM projections WHERE name = 'usage'", [(Code.PLACE_MISSING, "place of usage: it is gone, and there are rows in usage_runs, usage_by_run, usage_by_day")]),
    # the tables
    Attack("table gone", "DROP TABLE agent_runs", [(Code.TABLE_WRONG, "table agent_runs of agent_runs: it is gone")]),
    Attack("column gone", ("DROP INDEX runs_by_agent", "ALTER TABLE runs DROP COLUMN agent"), [(Code.TABLE_WRONG, "tables runs of runs: it is not as this release has it")]),
    Attack("column of another type", ("ALTER TABLE usage_by_day ALTER calls DROP DEFAULT", "ALTER TABLE usage_by_day ALTER calls TYPE text"), [(Code.TABLE_WRONG, "usage_by_day of usage: it is not as this release has it")]),
)  # fmt: skip
"""`named` as for attacks on the log: all findings, and no other kind."""
