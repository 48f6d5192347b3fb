"""The audit over HTTP: who did what, from where, when; read by those who may, and never unseen."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from codeagent import clock
from codeagent.cli.audit import copy_checked
from codeagent.cli.main import app as commands
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import forget_origins
from codeagent.messages.envelope import instant
from codeagent.messages.events import InputReceived
from codeagent.messages.ids import call_stream, run_stream
from codeagent.messages.values import ApprovalDecision, Outcome
from codeagent.transparency.ocsf import VERSION, ocsf_event
from tests.integration.edge.auditing import EVENTS, EXPORT, acts, catch_up, exported, lines
from tests.integration.edge.gateway import MINE, Edge
from tests.integration.eventlog.steps import APPROVAL, cause, commit_step, new_run, prepared, started, step, waiting
from tests.integration.opened import everything_said
from tests.integration.projections.logs import Happened, call, execution, write_at_once
from tests.unit.transparency.ocsf_schema import problems

UNSEALED = "key_id = NULL, sealed = NULL, sealed_digest = NULL"


async def run_of_mine(url: str, events: int = 1) -> str:
    owner, run_id = Database(url, connections=1), new_run()
    await commit_step(owner, step(run_id, 0, [started()] * events, tenant=MINE))
    await owner.close()
    return run_id


def refused(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_a_line_tells_who_did_what_to_which_thing_from_where_and_how_it_ended(
    edge: Edge, newest_database_url: str
) -> None:
    made = await edge.make_key(edge.keys.owner)
    [line] = await lines(edge, newest_database_url, edge.keys.owner, action="api_key.created")
    assert (line["specversion"], line["type"]) == ("1.0", "io.codeagent.api_key.created.v1")
    assert (line["authtype"], line["authid"]) == ("api_key", "usr_owner")
    assert (line["resourcekind"], line["resourceid"]) == ("api_key", made["id"])
    assert (line["outcome"], line["clientaddress"]) == ("success", "127.0.0.1")
    assert line["data"]["principal"] == "usr_owner"
    one = await edge.call(edge.keys.owner, "GET", f"{EVENTS}/{line['id']}")
    assert one.json() == line


async def test_it_is_searched_by_actor_action_resource_outcome_and_time(edge: Edge, newest_database_url: str) -> None:
    mine, theirs = await edge.make_key(edge.keys.owner), await edge.make_key(edge.keys.developer)
    middle = clock.now()
    await edge.revoke(edge.keys.owner, mine["id"])
    await catch_up(newest_database_url)

    async def found(**wanted: Any) -> list[str]:
        shown = await lines(edge, newest_database_url, edge.keys.owner, **wanted)
        return [act for act in acts(shown) if act != "audit.read"]

    assert await found() == ["api_key.revoked", "api_key.created", "api_key.created"]
    assert await found(actor="usr_developer") == ["api_key.created"]
    assert await found(resource_id=mine["id"]) == ["api_key.revoked", "api_key.created"]
    assert await found(resource_kind="run") == []
    assert await found(action="api_key.created", resource_id=theirs["id"]) == ["api_key.created"]
    assert await found(outcome="denied") == []
    assert await found(since=middle.isoformat()) == ["api_key.revoked"]
    assert await found(until=middle.isoformat()) == ["api_key.created", "api_key.created"]


async def test_every_model_call_is_found_by_its_run_with_what_it_came_to_and_not_what_was_said(
    edge: Edge, newest_database_url: str
) -> None:
    run_id, owner = new_run(), Database(newest_database_url, connections=1)
    failed = call(run_id, "test/other", outcome=Outcome.FAILED, cost=None)
    for number, event in enumerate((call(run_id), failed)):
        await write_at_once(owner, [Happened(run_id, event, clock.now().date(), MINE, number)])
    await owner.close()
    wanted = {"resource_kind": "call", "resource_id": run_id}
    found = await lines(edge, newest_database_url, edge.keys.owner, **wanted)
    assert acts(found) == ["provider.call.ended"] * 2
    assert [(line["outcome"], line["data"]["model"]) for line in found] == [
        ("failure", "test/other"),
        ("success", "test/model"),
    ]
    assert found[1]["data"]["cost_usd"] == "0.10"
    by_action = await lines(edge, newest_database_url, edge.keys.owner, action="provider.call.ended", outcome="failure")
    assert [line["id"] for line in by_action] == [found[0]["id"]]


async def test_a_search_in_pages_is_complete_stays_as_it_was_and_is_one_read(
    edge: Edge, newest_database_url: str
) -> None:
    made = [(await edge.make_key(edge.keys.owner))["id"] for _ in range(5)]
    await catch_up(newest_database_url)
    path, found = f"{EVENTS}?action=api_key.created&limit=2", []
    while path:
        page = await edge.call(edge.keys.owner, "GET", path)
        found += [item["resourceid"] for item in page.json()["items"]]
        await edge.make_key(edge.keys.owner)  # what comes meanwhile moves nothing
        await catch_up(newest_database_url)
        path = page.headers.get("link", "").partition(">")[0].removeprefix("<")
    assert found == made[::-1]
    reads = await lines(edge, newest_database_url, edge.keys.owner, action="audit.read")
    assert [(line["authid"], line["data"]) for line in reads] == [
        ("usr_owner", {"access": "search", "filter": {"action": "api_key.created"}})
    ]


async def test_a_cursor_continues_the_search_of_its_reader_and_no_other(edge: Edge, newest_database_url: str) -> None:
    for _ in range(3):
        await edge.make_key(edge.keys.owner)
    await catch_up(newest_database_url)
    first = await edge.call(edge.keys.owner, "GET", EVENTS, params={"limit": 1, "action": "api_key.created"})
    cursor = first.json()["next_cursor"]
    other = await edge.make_key(edge.keys.owner, scopes=["audit:read"])
    same = {"cursor": cursor, "action": "api_key.created"}
    assert (await edge.call(other["key"], "GET", EVENTS, params=same)).status_code == 200  # the same person
    for key, wanted in (
        (edge.keys.owner, {"cursor": cursor}),
        (edge.keys.owner, {"cursor": cursor, "action": "user.created"}),
        (edge.keys.stranger, same),
        (edge.keys.owner, {"cursor": "x"}),
        (edge.keys.owner, {"cursor": "AAAA~~"}),
    ):
        assert refused(await edge.call(key, "GET", EVENTS, params=wanted)) == (400, "malformed_cursor")


async def test_every_kind_of_reading_is_written_down(edge: Edge, newest_database_url: str) -> None:
    made = await edge.make_key(edge.keys.owner)
    [line] = await lines(edge, newest_database_url, edge.keys.owner, action="api_key.created")
    stream = f"api_key-{made['id']}"
    await edge.call(edge.keys.owner, "GET", f"{EVENTS}/{line['id']}")
    await edge.call(edge.keys.owner, "GET", "/v1/audit/verify", params={"stream_id": stream})
    await edge.call(edge.keys.owner, "GET", EXPORT, params={"actor": "usr_owner", "until": "2030-01-01T00:00:00Z"})
    reads = await lines(edge, newest_database_url, edge.keys.owner, action="audit.read")
    assert [line["data"] for line in reads] == [
        {"access": "export", "filter": {"actor": "usr_owner", "until": "2030-01-01T00:00:00.000000Z"}},
        {"access": "verification", "filter": {"stream_id": stream}},
        {"access": "event", "filter": {"event_id": line["id"]}},
        {"access": "search", "filter": {"action": "api_key.created"}},
    ]


async def test_another_tenants_acts_are_not_there(edge: Edge, newest_database_url: str) -> None:
    made = await edge.make_key(edge.keys.owner)
    run_id = await run_of_mine(newest_database_url)
    assert await lines(edge, newest_database_url, edge.keys.stranger) == []
    for wanted in ({"run_id": run_id}, {"stream_id": f"api_key-{made['id']}"}):
        answer = await edge.call(edge.keys.stranger, "GET", "/v1/audit/verify", params=wanted)
        assert refused(answer) == (404, "not_found")
    events, end = exported((await edge.call(edge.keys.stranger, "GET", EXPORT)).text)
    assert (acts(events), end["count"]) == ([], 0)


async def test_what_a_run_was_told_is_not_for_those_who_read_the_audit(edge: Edge, newest_database_url: str) -> None:
    owner = Database(newest_database_url, connections=1)
    await owner.write(
        "INSERT INTO events (stream_id, stream_version, tenant_id, event_id, event_type, schema_version, data, "
        "data_digest, metadata, occurred_at, leaf_hash) VALUES ('run-run_1', 1, $1, gen_random_uuid(), "
        "'run.submitted', 1, '{\"task\": \"canary\"}', sha256(''), $2, now(), sha256(''))",
        MINE,
        '{"runid": "run_1", "correlationid": "01935f6e-8c4b-7d2a-9c1e-3f5a7b9d1e20", "authid": "usr_owner"}',
    )
    await owner.close()
    [line] = await lines(edge, newest_database_url, edge.keys.owner, resource_kind="run")
    assert (acts([line]), line["resourceid"], line["data"]) == (["run.submitted"], "run_1", {})
    assert "canary" not in (await edge.call(edge.keys.owner, "GET", EXPORT)).text


async def test_the_refused_are_known_and_cannot_fill_the_log(edge: Edge, newest_database_url: str) -> None:
    elsewhere = await edge.make_key(edge.keys.owner, networks=["203.0.113.0/24"])
    for _ in range(20):
        assert (await edge.call(edge.keys.powerless, "GET", "/v1/runs")).status_code == 403
        assert (await edge.call(elsewhere["key"], "GET", "/v1/runs")).status_code == 403
        assert (await edge.call("cak_nobody", "GET", "/v1/runs")).status_code == 401
    await edge.identity.refusals.stop()  # tells what it has counted
    found = await lines(edge, newest_database_url, edge.keys.owner, action="access.refused")
    told = {(line["data"]["credential_id"], line["data"]["reason"]): 0 for line in found}
    for line in found:
        told[line["data"]["credential_id"], line["data"]["reason"]] += line["data"]["times"]
    assert told == {("key_usr_powerless", "insufficient_scope"): 20, (elsewhere["id"], "foreign_address"): 20}
    assert len(found) <= 4
    assert {(line["outcome"], line["clientaddress"]) for line in found} == {("denied", "127.0.0.1")}


async def test_an_address_is_forgotten_after_its_time_and_the_fact_stays_whole(
    edge: Edge, newest_database_url: str
) -> None:
    made = await edge.make_key(edge.keys.owner)
    owner = Database(newest_database_url, connections=1)
    assert await forget_origins(owner, timedelta(days=1), 10) == 0
    while await forget_origins(owner, timedelta(0), 10):
        pass
    log = await everything_said(owner)
    await owner.close()
    assert "127.0.0.1" not in log
    [line] = await lines(edge, newest_database_url, edge.keys.owner, resource_id=made["id"])
    assert "clientaddress" not in line
    answer = await edge.call(edge.keys.owner, "GET", "/v1/audit/verify", params={"stream_id": f"api_key-{made['id']}"})
    assert answer.json()["verified"]


async def test_a_stream_is_verified_with_what_it_asked_for(edge: Edge, newest_database_url: str) -> None:
    run_id = await run_of_mine(newest_database_url, events=3)
    answer = await edge.call(edge.keys.owner, "GET", "/v1/audit/verify", params={"run_id": run_id})
    whole = {"stream_id": run_stream(run_id), "verified": True, "complete": True, "events": 3, "findings": []}
    assert answer.json() == whole
    owner = Database(newest_database_url, connections=1)
    await owner.write(
        "UPDATE events SET data = data || ' ' WHERE stream_id = $1 AND stream_version = 2", run_stream(run_id)
    )
    await owner.write(
        "UPDATE events SET stream_id = $2 WHERE stream_id = $1 AND stream_version = 3",
        run_stream(run_id),
        call_stream(clock.new_uuid()),
    )
    await owner.close()
    changed = (await edge.call(edge.keys.owner, "GET", "/v1/audit/verify", params={"run_id": run_id})).json()
    assert (changed["verified"], changed["events"]) == (False, 3)
    assert "does not match its digest" in changed["findings"][0]["problem"]
    assert any("missing" in finding["problem"] for finding in changed["findings"])


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        (EVENTS, {"actor": "ada@example.org"}),
        (EVENTS, {"outcome": "fine"}),
        (EVENTS, {"since": "2026-11-23"}),
        (EVENTS, {"since": "2026-11-23T10:00:00Z", "until": "2026-11-23T09:00:00Z"}),
        (EVENTS, {"limit": "201"}),
        ("/v1/audit/verify", {}),
        ("/v1/audit/verify", {"run_id": "run_1", "stream_id": "run-run_1"}),
    ],
)
async def test_what_cannot_be_asked_is_refused(edge: Edge, path: str, wanted: dict[str, str]) -> None:
    assert refused(await edge.call(edge.keys.owner, "GET", path, params=wanted)) == (422, "validation_failed")


async def test_an_export_holds_every_line_in_order_and_vouches_for_them(edge: Edge, newest_database_url: str) -> None:
    owner = Database(newest_database_url, connections=1)
    await owner.write(
        """WITH facts AS (
               INSERT INTO events (stream_id, stream_version, tenant_id, event_id, event_type, schema_version, data,
                                   data_digest, metadata, occurred_at, leaf_hash)
               SELECT 'thing-' || n, 1, $1, gen_random_uuid(), 'api_key.revoked', 1, '{}', sha256(''), $2::jsonb,
                      timestamptz '2026-01-01' + n % 7 * interval '1 hour', sha256('')
               FROM generate_series(1, 1203) AS n RETURNING *)
           INSERT INTO audit_events
           SELECT event_id, tenant_id, occurred_at, 'app_user', 'usr_1', event_type, 'thing', stream_id, 'success'
           FROM facts""",
        MINE,
        '{"correlationid": "01935f6e-8c4b-7d2a-9c1e-3f5a7b9d1e20"}',
    )
    await owner.close()
    answer = await edge.call(edge.keys.owner, "GET", EXPORT, params={"until": "2026-01-02T00:00:00Z"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/jsonl")
    events, end = exported(answer.text)
    places = [(event["time"], event["id"]) for event in events]
    assert (len(places), places) == (1203, sorted(set(places)))
    body = answer.content[: answer.content.rstrip(b"\n").rindex(b"\n") + 1]
    assert (end["count"], end["sha256"]) == (1203, sha256(body).hexdigest())


async def test_the_command_line_takes_no_export_that_was_cut_or_changed(edge: Edge, newest_database_url: str) -> None:
    await asyncio.gather(*(edge.make_key(edge.keys.owner) for _ in range(3)))
    await catch_up(newest_database_url)
    whole = (await edge.call(edge.keys.owner, "GET", EXPORT)).content.splitlines(keepends=True)
    assert copy_checked(iter(whole), io.BytesIO()) == len(whole) - 1
    for broken in (whole[:-1], whole[1:], [b" " + whole[0], *whole[1:]], [*whole, whole[-1]], []):
        assert copy_checked(iter(broken), io.BytesIO()) is None


async def test_the_same_lines_come_in_the_ocsf_schema(edge: Edge, newest_database_url: str) -> None:
    """Valid by the published schema, in the same order, and with no word that the other export does not have."""
    await edge.make_key(edge.keys.owner)
    assert (await edge.call(edge.keys.powerless, "GET", "/v1/runs")).status_code == 403
    owner, run_id = Database(newest_database_url, connections=1), new_run()
    await write_at_once(owner, [Happened(run_id, call(run_id), tenant_id=MINE)])
    await owner.close()
    await catch_up(newest_database_url)
    until = {"until": instant(clock.now())}
    events, _ = exported((await edge.call(edge.keys.owner, "GET", EXPORT, params=until)).text)
    answer = await edge.call(edge.keys.owner, "GET", EXPORT, params={**until, "format": "ocsf"})
    assert answer.headers["content-disposition"] == 'attachment; filename="audit.ocsf.jsonl"'
    *told, end = (json.loads(line) for line in answer.text.splitlines())
    assert [problem for each in (*told, end) for problem in problems(each)] == []
    assert [each["metadata"]["uid"] for each in told] == [event["id"] for event in events]
    assert told == [ocsf_event(event) for event in events]
    assert {each["class_uid"] for each in told} >= {0, 6003}
    body = answer.content[: answer.content.rstrip(b"\n").rindex(b"\n") + 1]
    assert end["unmapped"]["data"]["sha256"] == sha256(body).hexdigest()
    whole = answer.content.splitlines(keepends=True)
    assert copy_checked(iter(whole), io.BytesIO()) == len(events)
    for broken in (whole[:-1], whole[1:]):
        assert copy_checked(iter(broken), io.BytesIO()) is None
    assert refused(await edge.call(edge.keys.owner, "GET", EXPORT, params={"format": "xml"})) == (
        422,
        "validation_failed",
    )


async def test_the_command_line_searches_and_exports(
    edge: Edge, newest_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [(await edge.make_key(edge.keys.owner))["id"] for _ in range(3)]
    await catch_up(newest_database_url)
    monkeypatch.setenv("CODEAGENT_URL", str(edge.http.base_url))
    monkeypatch.setenv("CODEAGENT_API_KEY", edge.keys.owner)

    async def said(*words: str) -> list[str]:
        done = await asyncio.to_thread(CliRunner().invoke, commands, ["audit", *words])
        assert done.exit_code == 0, done.output
        return done.stdout.splitlines()

    shown = await said("search", "--action", "api_key.created", "--limit", "2", "--json")
    assert [json.loads(line)["resourceid"] for line in shown] == [made[2], made[1]]
    assert "127.0.0.1" in (await said("search", "--resource", made[0]))[0]
    path = tmp_path / "audit.jsonl"
    await said("export", "--output", str(path), "--until", "2030-01-01T00:00:00Z")
    events, end = exported(path.read_text())
    assert made == [event["resourceid"] for event in events if event["resourcekind"] == "api_key"]
    assert end["count"] == len(events)
    await said("export", "--output", str(path), "--until", "2030-01-01T00:00:00Z", "--format", "ocsf")
    assert {json.loads(line)["metadata"]["version"] for line in path.read_text().splitlines()} == {VERSION}


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        ("metadata = '[1]'", "corrupt_row"),
        ('metadata = \'{"authid": "usr_owner"}\'', "corrupt_row"),
        ('metadata = \'{"correlationid": "7"}\'', "corrupt_row"),
        (f"data = '\\xff00', {UNSEALED}", "invalid_payload"),
        (f"data = '[]', {UNSEALED}", "invalid_payload"),
        ("sealed = '\\x00'", "corrupt_row"),
    ],
)
async def test_a_damaged_fact_is_a_line_that_says_so_and_the_others_are_as_they_were(
    edge: Edge, newest_database_url: str, damage: str, code: str
) -> None:
    made = [await edge.make_key(edge.keys.owner) for _ in range(3)]
    before = await lines(edge, newest_database_url, edge.keys.owner, action="api_key.created")
    owner = Database(newest_database_url, connections=1)
    await owner.write(f"UPDATE events SET {damage} WHERE stream_id = $1", f"api_key-{made[1]['id']}")
    await owner.close()
    after = await lines(edge, newest_database_url, edge.keys.owner, action="api_key.created")
    assert [after[0], after[2]] == [before[0], before[2]]
    told = after[1]
    assert (told["unreadable"], told["data"]) == (code, {})
    kept = ("id", "type", "time", "authtype", "authid", "tenantid", "outcome", "resourcekind", "resourceid")
    assert [told[name] for name in kept] == [before[1][name] for name in kept]
    assert (await edge.call(edge.keys.owner, "GET", f"{EVENTS}/{told['id']}")).json() == told
    exports = await edge.call(edge.keys.owner, "GET", EXPORT, params={"action": "api_key.created"})
    events, end = exported(exports.text)
    assert (events, end["count"]) == (after[::-1], 3)


async def test_so_is_an_operation_in_a_sandbox_whose_outputs_are_none(edge: Edge, newest_database_url: str) -> None:
    run_id, owner = new_run(), Database(newest_database_url, connections=1)
    await write_at_once(owner, [Happened(run_id, execution(run_id), clock.now().date(), MINE)])
    await owner.write("UPDATE events SET data = '{\"stdout\": [7]}' WHERE stream_id LIKE 'exec-%'")
    await owner.close()
    [line] = await lines(edge, newest_database_url, edge.keys.owner, resource_id=run_id)
    assert (line["unreadable"], line["data"]) == ("invalid_payload", {})


async def test_who_allowed_or_rejected_what_is_told_and_not_what_they_wrote(
    edge: Edge, newest_database_url: str
) -> None:
    run_id, owner = new_run(), Database(newest_database_url, connections=1)
    said = InputReceived(
        approval_id=APPROVAL, decision=ApprovalDecision.REJECT, comment="the canary", principal="usr_owner"
    )
    by = replace(cause(run_id, MINE), actor_type="app_user", actor_id="usr_owner")
    await commit_step(owner, step(run_id, 0, [waiting()], tenant=MINE))
    await commit_step(
        owner, replace(step(run_id, 1, [said], tenant=MINE), cause=by, events=prepared(run_id, 1, [said], by))
    )
    await owner.close()
    answer, asked = await lines(edge, newest_database_url, edge.keys.owner, resource_id=run_id)
    assert acts([answer, asked]) == ["run.input_received", "run.input_required"]
    assert asked["data"] == {"approval_id": APPROVAL, "tool": "shell"}
    assert answer["data"] == {"approval_id": APPROVAL, "decision": "reject"}
    assert (answer["authid"], answer["outcome"]) == ("usr_owner", "denied")
    assert "canary" not in (await edge.call(edge.keys.owner, "GET", EXPORT)).text
