"""Rights of persons over their data: asked for, carried out in time, and proved."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from importlib.resources import files
from math import inf
from pathlib import Path
from typing import Any

import httpx2
import pytest

from codeagent import clock
from codeagent.dead_letters.letters import DeadLetters
from codeagent.dead_letters.tables import LetterFilter
from codeagent.encryption import SecretBox
from codeagent.eventlog.facts import Author, ControlPlane
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.migrations.statements import split_statements
from codeagent.eventlog.verify import verify
from codeagent.identity.principal import Principal
from codeagent.identity.scopes import Role
from codeagent.messages.catalog import CURRENT
from codeagent.messages.conversation import AssistantMessage
from codeagent.messages.events import CancelRequested, RunCanceled, RunSubmitted
from codeagent.messages.ids import privacy_stream, user_stream
from codeagent.messages.project_events import SessionCreated
from codeagent.privacy.content_erasure import ContentErasure
from codeagent.privacy.message_fields import MESSAGE_FIELDS
from codeagent.privacy.nothing_personal import NOTHING_PERSONAL
from codeagent.privacy.personal_data import HOLDINGS
from codeagent.projections.artifact_references import ArtifactReferences
from codeagent.projections.audit import AuditProjector
from codeagent.projections.usage import UsageProjector
from codeagent.providers.protocol import ModelReply, ModelRequest
from codeagent.relay.breaches import BreachClock
from codeagent.relay.dead_letters import DeadLetterKeeper
from codeagent.relay.erasures import Erasures
from codeagent.response_cache.cache import ResponseCache
from codeagent.response_cache.slot import Slot
from codeagent.telemetry.metrics import REGISTRY
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.notes import SigningKey
from tests.integration.dead_letters.records import BOX, DLQ, OPERATOR, ORIGIN, dead_letter, envelope_headers
from tests.integration.eventlog.steps import cause, commit_step, new_run, prepared, step
from tests.integration.identity.conftest import COLLEAGUE, EMAIL, PASSWORD, TENANT, World
from tests.integration.identity.oauth_client import OAuthClient

REQUESTS, BREACHES = "/v1/privacy/requests", "/v1/privacy/breaches"
EXAMPLES = Path(__file__).resolve().parents[3] / "schemas" / "examples"


def refused(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def user_id_of(client: OAuthClient) -> str:
    return str((await client.get("/v1/me")).json()["id"])


async def ask(owner: OAuthClient, kind: str, subject: str, note: str = "By letter.") -> httpx2.Response:
    body = {"kind": kind, "subject": subject, "note": note}
    return await owner.call("POST", REQUESTS, json=body, headers={"Idempotency-Key": kind})


async def carry_on(owner: OAuthClient, request: dict[str, Any], **body: str) -> httpx2.Response:
    headers = {"If-Match": f'"{request["version"]}"'}
    return await owner.call("PATCH", f"{REQUESTS}/{request['id']}", json=body, headers=headers)


async def begun(owner: OAuthClient, kind: str, subject: str) -> dict[str, Any]:
    """A request that is being worked on."""
    answer = await carry_on(owner, (await ask(owner, kind, subject)).json(), status="in_progress")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def audited(world: World) -> None:
    projector = AuditProjector(world.database, EventLog(world.database))
    while await projector.catch_up():
        pass


def relay_of(world: World, removed: list[str] | None = None) -> Erasures:
    """`removed` is told which artifacts would go."""
    signing = SigningKey.new("log.example.com/codeagent")

    async def remove(tenant_id: str, digests: Sequence[str]) -> Sequence[str]:
        if removed is not None:
            removed.extend(digests)
        return digests

    content = ContentErasure(
        world.database,
        remove,
        LogKeys(signing.verifier.name, (signing,), (signing.verifier,)),
        topic="t",
        settled_after=timedelta(0),
    )
    return Erasures(world.database, content)


async def erased(world: World, removed: list[str] | None = None) -> None:
    """The relay has gone through with all erasures that have begun."""
    erasures = relay_of(world, removed)
    async with asyncio.timeout(20):
        await audited(world)
        while await erasures.look():
            await ArtifactReferences(world.database, EventLog(world.database)).catch_up()


async def run_of(world: World, user_id: str, task: str, *, sealed: bool = True) -> str:
    """A run that the user submitted, and that was canceled."""
    run_id = new_run()
    envelope = replace(cause(run_id, TENANT), actor_type="app_user", actor_id=user_id)
    golden = RunSubmitted.model_validate_json((EXAMPLES / "run.submitted.v1.json").read_bytes())
    fact = golden.model_copy(update={"run_id": run_id, "task": task, "principal": user_id})
    made = step(run_id, 0, tenant=TENANT)
    key = await world.database.subjects.of(TENANT, user_id) if sealed else None
    events = prepared(run_id, 0, [fact, RunCanceled(message=task)], envelope, key)
    await commit_step(world.database, replace(made, cause=envelope, events=events))
    await audited(world)
    return run_id


async def shut_out(client: OAuthClient) -> None:
    async with asyncio.timeout(10):
        while (await client.get("/v1/me")).status_code != 401:
            await asyncio.sleep(0.01)


async def test_a_request_is_due_in_a_month_and_each_step_of_it_is_a_fact(world: World) -> None:
    owner, grace = await world.owner(), await user_id_of(await world.colleague())
    answer = await ask(owner, "objection", grace)
    made = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"{REQUESTS}/{made['id']}")
    assert (made["status"], made["overdue"], answer.headers["etag"]) == ("received", False, '"1"')
    days = datetime.fromisoformat(made["due_at"]) - datetime.fromisoformat(made["created_at"])
    assert timedelta(days=28) <= days <= timedelta(days=31)
    repeat = await ask(owner, "objection", grace)
    assert (repeat.status_code, repeat.headers["idempotent-replayed"]) == (200, "true")
    assert repeat.json()["id"] == made["id"]
    assert refused(await ask(owner, "objection", grace, "By mail.")) == (422, "idempotency_key_reused")
    started = (await carry_on(owner, made, status="in_progress")).json()
    done = (await carry_on(owner, started, status="completed")).json()
    assert (done["status"], done["version"]) == ("completed", 3)
    assert (await owner.get(f"{REQUESTS}?subject={grace}")).json()["items"] == [done]
    facts = await world.facts(privacy_stream(made["id"]))
    assert [fact.type for fact in facts] == [f"privacy.request.{act}" for act in ("received", "started", "completed")]
    assert "By letter" not in str([fact.data for fact in facts])


async def test_a_change_fits_its_status_and_its_version(world: World) -> None:
    owner, grace = await world.owner(), await user_id_of(await world.colleague())
    made = (await ask(owner, "rectification", grace)).json()
    assert refused(await carry_on(owner, made, status="completed")) == (409, "invalid_state_transition")
    assert refused(await carry_on(owner, made, status="rejected")) == (422, "validation_failed")
    assert refused(await carry_on(owner, {**made, "version": 7}, status="in_progress")) == (412, "version_mismatch")
    bare = await owner.call("PATCH", f"{REQUESTS}/{made['id']}", json={"status": "in_progress"})
    assert refused(bare) == (428, "precondition_required")
    both = await asyncio.gather(*(carry_on(owner, made, status="in_progress") for _ in range(2)))
    assert sorted(answer.status_code for answer in both) == [200, 412]
    rejected = await carry_on(owner, {**made, "version": 2}, status="rejected", reason="It is right as it is.")
    assert (rejected.json()["status"], rejected.json()["reason"]) == ("rejected", "It is right as it is.")
    assert refused(await carry_on(owner, rejected.json(), status="in_progress")) == (409, "invalid_state_transition")
    assert refused(await ask(owner, "access", "usr_nobody")) == (422, "unknown_subject")


async def test_more_time_is_given_once_with_a_reason_and_three_months_at_most(world: World) -> None:
    owner, grace = await world.owner(), await user_id_of(await world.colleague())
    made = (await ask(owner, "access", grace)).json()
    received = datetime.fromisoformat(made["created_at"])

    async def extended(days: int, reason: str = "There is much.") -> httpx2.Response:
        return await carry_on(owner, made, due_at=(received + timedelta(days=days)).isoformat(), reason=reason)

    assert refused(await extended(93)) == (422, "validation_failed")
    assert refused(await extended(20)) == (422, "validation_failed")
    assert refused(await extended(60, "")) == (422, "validation_failed")
    longer = await extended(60)
    assert (longer.status_code, longer.json()["extension"]) == (200, "There is much.")
    made = longer.json()
    assert refused(await extended(80)) == (409, "invalid_state_transition")
    await world.sql(
        "UPDATE privacy_requests SET created_at = now() - interval '70 days', due_at = now() - interval '9 days'"
    )
    assert (await owner.get(f"{REQUESTS}/{made['id']}")).json()["overdue"]


async def test_an_export_holds_everything_of_the_subject_and_nothing_of_others(world: World) -> None:
    owner, colleague = await world.owner(), await world.colleague(Role.DEVELOPER)
    mine, theirs = await user_id_of(owner), await user_id_of(colleague)
    key = {"name": "key of Charles", "scopes": ["runs:read"]}
    await colleague.call("POST", "/v1/api-keys", json=key, headers={"Idempotency-Key": "k"})
    await owner.call("POST", "/v1/api-keys", json={**key, "name": "key of Ada"}, headers={"Idempotency-Key": "k"})
    await colleague.call(
        "POST", "/v1/service-accounts", json={**key, "name": "robot of Charles"}, headers={"Idempotency-Key": "k"}
    )
    await owner.call(
        "POST", "/v1/service-accounts", json={**key, "name": "robot of Ada"}, headers={"Idempotency-Key": "k"}
    )
    for client, name in ((colleague, "Charles"), (owner, "Ada")):
        await client.call("POST", "/v1/sessions", json={"title": f"talk of {name}"}, headers={"Idempotency-Key": "k"})
        await capped(owner, await user_id_of(client), f"cap of {name}")
    run_id = await run_of(world, theirs, "task of Charles")
    await run_of(world, mine, "task of Ada")
    request = await begun(owner, "access", theirs)
    await audited(world)
    await UsageProjector(world.database, EventLog(world.database)).catch_up()
    answer = await owner.get(f"{REQUESTS}/{request['id']}/export")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    document = answer.json()
    assert (document["user"]["id"], document["user"]["email"]) == (theirs, COLLEAGUE)
    assert [key["name"] for key in document["api_keys"]] == ["key of Charles"]
    assert [account["name"] for account in document["service_accounts"]] == ["robot of Charles"]
    assert [(run["id"], run["task"]) for run in document["runs"]] == [(run_id, "task of Charles")]
    assert [(item["kind"], item["note"]) for item in document["privacy_requests"]] == [("access", "By letter.")]
    assert len(document["sessions"]) == 1
    assert [item["title"] for item in document["conversations"]] == ["talk of Charles"]
    assert [item["name"] for item in document["budgets"]] == ["cap of Charles"]
    assert [item["model"] for item in document["usage"]] == ["builtin/repair"]
    actions = {line["action"] for line in document["audit"]}
    assert actions >= {"user.created", "auth.login.succeeded", "api_key.created", "run.submitted"}
    for foreign in (EMAIL, EMAIL.lower(), mine, "of Ada", "argon2", "cak_"):
        assert foreign not in answer.text.replace(document["api_keys"][0]["hint"], ""), foreign
    facts = await world.facts(privacy_stream(request["id"]))
    assert facts[-1].type == "privacy.request.exported"


async def capped(owner: OAuthClient, principal_id: str, name: str) -> None:
    """A budget of one principal."""
    budget = {
        "name": name,
        "scope": "principal",
        "scope_id": principal_id,
        "period": "day",
        "unit": "usd",
        "limit": "1",
    }
    made = await owner.call("POST", "/v1/budgets", json=budget, headers={"Idempotency-Key": f'"{name}"'})
    assert made.status_code == 201, made.text


async def test_there_is_an_export_of_what_was_asked_and_begun_alone(world: World) -> None:
    owner, grace = await world.owner(), await user_id_of(await world.colleague())
    for request in ((await ask(owner, "portability", grace)).json(), await begun(owner, "objection", grace)):
        answer = await owner.get(f"{REQUESTS}/{request['id']}/export")
        assert refused(answer) == (409, "invalid_state_transition")


async def test_a_restricted_user_is_shut_out_and_comes_back_whole(world: World) -> None:
    owner, colleague = await world.owner(), await world.colleague(Role.DEVELOPER)
    theirs = await user_id_of(colleague)
    key = {"name": "test", "scopes": ["runs:read"]}
    made = await colleague.call("POST", "/v1/api-keys", json=key, headers={"Idempotency-Key": "k"})
    before = await world.database.fetch("SELECT email_sealed FROM users WHERE id = $1", theirs)
    request = await begun(owner, "restriction", theirs)
    await shut_out(colleague)
    assert world.edge.revocations.revoked(Principal(TENANT, theirs, made.json()["id"]))
    assert (await colleague.renew()).status_code == 400
    assert (await world.client().authorize(COLLEAGUE, PASSWORD)).status_code == 400
    assert await world.database.fetch("SELECT email_sealed FROM users WHERE id = $1", theirs) == before
    done = (await carry_on(owner, request, status="completed")).json()
    path, headers = f"{REQUESTS}/{done['id']}/lift", {"If-Match": f'"{done["version"]}"'}
    lifted = (await owner.call("POST", path, headers=headers)).json()
    assert "lifted_at" in lifted["result"]
    assert (await world.client().log_in(COLLEAGUE, PASSWORD)).status_code == 200
    again = await owner.call("POST", path, headers={"If-Match": "*"})
    assert refused(again) == (409, "invalid_state_transition")
    types = [fact.type for fact in await world.facts(user_stream(theirs))]
    assert [name for name in types if "restrict" in name] == ["user.restricted", "user.restriction_lifted"]


async def test_the_last_owner_can_be_neither_erased_nor_restricted(world: World) -> None:
    owner = await world.owner()
    for kind in ("erasure", "restriction"):
        made = (await ask(owner, kind, world.user_id)).json()
        assert refused(await carry_on(owner, made, status="in_progress")) == (409, "last_owner")
    assert (await owner.get("/v1/me")).status_code == 200


async def test_an_erasure_leaves_nothing_that_leads_to_the_person(world: World) -> None:
    owner, colleague = await world.owner(), await world.colleague(Role.DEVELOPER)
    theirs = await user_id_of(colleague)
    key = {"name": "canary key", "scopes": ["runs:read"], "networks": ["203.0.113.77/32"]}
    made = await colleague.call("POST", "/v1/api-keys", json=key, headers={"Idempotency-Key": "k"})
    talk = {"title": "canary talk"}
    await colleague.call("POST", "/v1/sessions", json=talk, headers={"Idempotency-Key": "k"})
    await audited(world)
    digests = await world.edge.users.digests.get()
    secrets = await world.database.fetch(
        """SELECT encode(u.email_digest, 'hex'), encode(u.email_sealed, 'hex'), p.hash, encode(k.digest, 'hex'), k.hint,
                  k.fingerprint, s.fingerprint
           FROM users u JOIN passwords p ON p.user_id = u.id JOIN api_keys k ON k.principal_id = u.id
                JOIN sessions s ON s.created_by = u.id
           WHERE u.id = $1""",
        theirs,
    )
    canaries = [*secrets[0], "203.0.113.77", digests.email(COLLEAGUE).hex()]
    assert not await stored(world, "canary")
    assert all([await stored(world, canary) for canary in canaries])
    request = await begun(owner, "erasure", theirs)
    await shut_out(colleague)
    assert [canary for canary in canaries if await stored(world, canary)] == []
    assert request["result"]["remaining"] == []
    assert (await colleague.renew()).status_code == 400
    assert (await world.client().authorize(COLLEAGUE, PASSWORD)).status_code == 400
    status = await world.database.fetch("SELECT revoked_at IS NOT NULL FROM api_keys WHERE id = $1", made.json()["id"])
    assert status[0][0]
    removed = request["result"]["removed"]
    assert (removed["users"], removed["passwords"], removed["login_sessions"], removed["api_keys"]) == (1, 1, 1, 1)
    assert removed["fact_origins"] >= 2
    assert verify(await world.facts(user_stream(theirs))) == []
    assert (await owner.get("/v1/me")).json()["email"] == EMAIL


async def stored(world: World, text: str) -> set[str]:
    """Tables with a row that has this in it, as text or as bytes."""
    tables = await world.database.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    found, wanted = set(), f"{re.escape(text)}|{text.encode().hex()}"
    for name in (row[0] for row in tables):
        if await world.database.fetch(f"SELECT 1 FROM {name} t WHERE t::text ~ $1 LIMIT 1", wanted):
            found.add(name)
    return found


async def test_an_erasure_stays_open_as_long_as_content_is_left(world: World) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    await run_of(world, theirs, "task of Charles", sealed=False)
    request = await begun(owner, "erasure", theirs)
    assert refused(await carry_on(owner, request, status="completed")) == (409, "erasure_in_progress")
    assert refused(await owner.get(f"{REQUESTS}/{request['id']}/certificate")) == (409, "erasure_in_progress")
    stopped = await carry_on(owner, request, status="rejected", reason="A mistake.")
    assert refused(stopped) == (409, "erasure_in_progress"), "nobody is told that nothing was erased"
    await erased(world)
    remaining = {item["what"].partition(":")[0]: item["count"] for item in request["result"]["remaining"]}
    assert remaining == {"run.submitted": 1, "run.canceled": 1}
    assert {item["what"].partition(":")[0] for item in request["result"]["kept"]} >= {"audit"}
    assert refused(await carry_on(owner, request, status="completed")) == (409, "content_remains")
    assert (await owner.get(f"{REQUESTS}/{request['id']}")).json()["status"] == "in_progress"


async def test_an_erasure_removes_the_replies_that_are_kept_of_the_subjects_runs(world: World) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    cache = ResponseCache(world.database, SecretBox({"k": bytes(32)}))
    hour, reply = timedelta(hours=1), ModelReply(AssistantMessage(text="Charles is right."))
    slots = [Slot(TENANT, "k1", hour, theirs), Slot(TENANT, "k2", hour, theirs), Slot(TENANT, "k3", hour, "usr_other")]
    for slot in slots:
        await cache.keep(slot, reply)
    await audited(world)
    request = await begun(owner, "erasure", theirs)
    assert request["result"]["removed"]["response_cache"] == 2
    question = ModelRequest(model="m", messages=())
    assert [await cache.find(slot, question) is None for slot in slots] == [True, True, False]


async def test_an_erasure_leaves_no_dead_letter_of_the_subject_whatever_became_of_its_order(world: World) -> None:
    """Of orders that no worker could take there is nothing in the log; of others the run may be somebody else's."""
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    keeper = DeadLetterKeeper(world.database, BOX, {DLQ: ORIGIN})
    own, foreign = await run_of(world, theirs, "a task"), await run_of(world, world.user_id, "another task")
    by_them, by_another = ("app_user", theirs), ("app_user", world.user_id)
    gone = [(new_run(), by_them), (new_run(), ("run", own)), (foreign, by_them), (own, by_another)]
    stays = [(new_run(), by_another), (foreign, ("system", "system"))]
    for offset, (run_id, actor) in enumerate([*gone, *stays]):
        await keeper(dead_letter(envelope_headers(run_id, actor, TENANT), offset=offset))
    # As they were before that was written down.
    await world.sql("UPDATE dead_letters SET key_id = NULL, author_id = NULL WHERE run_id <> ALL ($1)", [own, foreign])
    await world.sql(backfill_of("0042_dead_letters.sql"))
    await begun(owner, "erasure", theirs)
    await erased(world)
    left = await world.database.fetch("SELECT run_id FROM dead_letters ORDER BY dlq_offset")
    assert [row["run_id"] for row in left] == [run_id for run_id, _ in stays]
    [erasure] = await world.database.fetch("SELECT counts, certificate FROM erasures")
    assert json.loads(erasure["counts"])["dead_letters"] == len(gone)
    await keeper(dead_letter(envelope_headers(new_run(), by_them, TENANT), offset=99))
    [late] = await world.database.fetch("SELECT record_sealed FROM dead_letters WHERE author_id = $1", theirs)
    assert late["record_sealed"] is None


def backfill_of(script: str) -> str:
    """The statement of a migration that fills in what rows of before do not have."""
    text = (files("codeagent.eventlog.migrations") / "sql" / script).read_text()
    [statement] = [each for each in split_statements(text) if each.startswith("UPDATE ")]
    return statement


async def test_an_erasure_empties_the_way_out_of_dead_letters_that_are_sent_again(world: World) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    await world.database.subjects.of(TENANT, theirs)
    keeper = DeadLetterKeeper(world.database, BOX, {DLQ: ORIGIN})
    await keeper(dead_letter(envelope_headers(new_run(), ("app_user", theirs), TENANT)))
    letters = DeadLetters(world.database, BOX)
    [letter] = await letters.oldest_open(LetterFilter(), 10)
    await letters.redrive(OPERATOR, letter)
    waiting = "SELECT count(*) FROM outbox WHERE tenant_id = 'installation'"
    assert [row[0] for row in await world.database.fetch(waiting)] == [1]
    await begun(owner, "erasure", theirs)
    await erased(world)
    assert [row[0] for row in await world.database.fetch(waiting)] == [0]


async def test_an_erasure_removes_the_address_of_what_was_being_done_as_it_began(world: World) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    await audited(world)
    await begun(owner, "erasure", theirs)
    author = Author(TENANT, "app_user", theirs, clock.new_uuid(), address="203.0.113.77")
    async with ControlPlane(world.database).change(author) as change:
        await change.append("session-late", SessionCreated(session_id="late", project_id=None))
    assert await stored(world, "203.0.113.77") == {"fact_origins"}
    await erased(world)
    assert await stored(world, "203.0.113.77") == set()


async def test_an_erasure_of_somebody_who_wrote_nothing_is_completed(world: World) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    # Facts with nothing of theirs in them are not sealed, and nothing that is left.
    run_id = new_run()
    envelope = replace(cause(run_id, TENANT), actor_type="app_user", actor_id=theirs)
    said = prepared(run_id, 0, [CancelRequested(principal=theirs), RunCanceled()], envelope)
    await commit_step(world.database, replace(step(run_id, 0, tenant=TENANT), cause=envelope, events=said))
    await audited(world)
    request = await begun(owner, "erasure", theirs)
    assert request["result"]["remaining"] == []
    await erased(world)
    assert (await carry_on(owner, request, status="completed")).json()["status"] == "completed"


async def test_the_edge_erases_users_of_its_tenant_and_none_by_hand(world: World) -> None:
    walled = world.edge.users.keys._database
    theirs = await user_id_of(await world.colleague())
    for statement in (f"SELECT erase_identity_v3('{theirs}')", f"DELETE FROM users WHERE id = '{theirs}'"):
        with pytest.raises(Exception, match=r"no user of this tenant|permission denied"):
            await walled.fetch(statement, tenant="ten_other")


async def test_every_table_and_every_column_with_a_users_id_is_on_the_list(world: World) -> None:
    owner, colleague = await world.owner(), await world.colleague(Role.DEVELOPER)
    theirs = await user_id_of(colleague)
    key = {"name": "test", "scopes": ["runs:read"]}
    await colleague.call("POST", "/v1/api-keys", json=key, headers={"Idempotency-Key": "k"})
    await colleague.call("POST", "/v1/service-accounts", json=key, headers={"Idempotency-Key": "k"})
    await colleague.call("POST", "/v1/stream-tickets", json={})
    await colleague.call("POST", "/v1/sessions", json={"title": "t"}, headers={"Idempotency-Key": "k"})
    project = {"name": "shop", "repository": "https://git.example.org/shop.git"}
    await colleague.call("POST", "/v1/projects", json=project, headers={"Idempotency-Key": "k"})
    await capped(owner, theirs, "cap")
    await run_of(world, theirs, "a task")
    await begun(owner, "access", theirs)
    await audited(world)
    await UsageProjector(world.database, EventLog(world.database)).catch_up()
    columns = await world.database.fetch(
        """SELECT table_name, column_name FROM information_schema.columns c JOIN pg_tables t ON t.tablename = table_name
           WHERE c.table_schema = 'public' AND t.schemaname = 'public'"""
    )
    listed = {holding.table: set(holding.columns) for holding in HOLDINGS}
    assert listed.keys() | NOTHING_PERSONAL.keys() == {table for table, _ in columns}
    assert listed.keys() & NOTHING_PERSONAL.keys() == set()
    unlisted = [
        (table, column)
        for table, column in columns
        if column not in listed.get(table, ()) and await holds(world, table, column, theirs)
    ]
    assert unlisted == []
    named = ("user_id", "principal_id", "actor_id", "subject_id", "created_by")
    assert [
        (table, column) for table, column in columns if column in named and column not in listed.get(table, ())
    ] == [
        ("events", "subject_id")  # written by nobody yet
    ]


async def holds(world: World, table: str, column: str, text: str) -> bool:
    """Whether a row has it there, as text or as bytes."""
    query = f"""SELECT 1 FROM {table}
                WHERE position($1 IN {column}::text) > 0 OR position($2 IN {column}::text) > 0 LIMIT 1"""
    return bool(await world.database.fetch(query, text, text.encode().hex()))


def test_fields_of_messages_on_the_list_are_there() -> None:
    roots = [(CURRENT[field.message], field.field.partition(".")[0]) for field in MESSAGE_FIELDS]
    assert [(kind, root) for kind, root in roots if root not in kind.model_fields] == []
    assert {"run.submitted", "run.input_received", "api_key.created"} <= {field.message for field in MESSAGE_FIELDS}


async def test_the_record_of_processing_says_what_for_and_how_long(world: World) -> None:
    record = (await (await world.owner()).get("/v1/privacy/records-of-processing")).json()
    assert {item["where"] for item in record["activities"]} == {holding.table for holding in HOLDINGS}
    assert all(item["purpose"] and item["retention"] and item["categories"] for item in record["activities"])


async def test_a_breach_has_a_clock_of_72_hours(world: World) -> None:
    owner = await world.owner()
    known = clock.now() - timedelta(hours=70)
    body = {"summary": "A laptop was stolen.", "discovered_at": known.isoformat()}

    async def record(discovered: datetime, repeat: str) -> httpx2.Response:
        wanted = {**body, "discovered_at": discovered.isoformat()}
        return await owner.call("POST", BREACHES, json=wanted, headers={"Idempotency-Key": repeat})

    made = (await record(known, "1")).json()
    assert datetime.fromisoformat(made["notify_by"]) - known == timedelta(hours=72)
    assert not made["overdue"]
    late = (await record(known - timedelta(hours=3), "2")).json()
    assert late["overdue"]
    assert refused(await record(clock.now() + timedelta(hours=1), "3")) == (422, "validation_failed")
    repeat = await record(known, "1")
    assert (repeat.status_code, repeat.headers["idempotent-replayed"], repeat.json()) == (200, "true", made)

    async def update(breach: dict[str, Any], **values: str) -> httpx2.Response:
        headers = {"If-Match": f'"{breach["version"]}"'}
        return await owner.call("PATCH", f"{BREACHES}/{breach['id']}", json=values, headers=headers)

    for name in ("authority_notified_at", "subjects_notified_at", "closed_at"):
        for moment in (known - timedelta(seconds=1), clock.now() + timedelta(hours=1)):
            answer = await update(made, **{name: moment.isoformat()})
            assert refused(answer) == (422, "validation_failed")
            assert answer.json()["errors"][0]["pointer"] == f"/{name}"
    told = (await update(made, authority_notified_at=clock.now().isoformat())).json()
    assert (told["version"], told["overdue"], told["summary"]) == (2, False, made["summary"])
    assert refused(await update(made, measures="x")) == (412, "version_mismatch")
    closed = (await update(told, closed_at=clock.now().isoformat())).json()
    assert refused(await update(closed, measures="x")) == (409, "invalid_state_transition")
    assert [item["id"] for item in (await owner.get(BREACHES)).json()["items"]] == [late["id"], made["id"]]
    await BreachClock(world.database).measure()
    assert -3700 < (breach_clock() or 0) < -3500
    nothing = (await update(late, closed_at=clock.now().isoformat())).json()
    assert not nothing["overdue"], "there was nothing to tell"
    await BreachClock(world.database).measure()
    assert breach_clock() == inf


def breach_clock() -> float | None:
    return REGISTRY.get_sample_value("codeagent_privacy_breach_seconds_left")


@pytest.mark.parametrize("categories", [["a\0b"], ["x" * 201], [""]])
async def test_a_kind_of_data_is_a_short_text(world: World, categories: list[str]) -> None:
    owner, now = await world.owner(), clock.now().isoformat()
    said = {"summary": "A laptop was stolen.", "discovered_at": now}
    wrong = await owner.call(
        "POST", BREACHES, json={**said, "categories": categories}, headers={"Idempotency-Key": "1"}
    )
    assert refused(wrong) == (422, "validation_failed")
    made = (await owner.call("POST", BREACHES, json=said, headers={"Idempotency-Key": "2"})).json()
    patched = await owner.call(
        "PATCH", f"{BREACHES}/{made['id']}", json={"categories": categories}, headers={"If-Match": '"1"'}
    )
    assert refused(patched) == (422, "validation_failed")


async def test_it_takes_the_scope(world: World) -> None:
    colleague = await world.colleague(Role.ADMIN)
    theirs = await user_id_of(colleague)
    assert refused(await ask(colleague, "erasure", theirs)) == (403, "insufficient_scope")
    assert (await colleague.get(BREACHES)).status_code == 200


async def test_requests_are_listed_in_pages(world: World) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    made = [(await ask(owner, kind, theirs)).json()["id"] for kind in ("access", "objection", "rectification")]
    found: list[str] = []
    path = f"{REQUESTS}?limit=2"
    while path:
        page = await owner.get(path)
        found += [item["id"] for item in page.json()["items"]]
        path = page.headers.get("link", "").partition(">")[0].removeprefix("<")
    assert found == made[::-1]
    assert refused(await owner.get(f"{REQUESTS}?cursor=x")) == (400, "malformed_cursor")
    assert json.loads((await owner.get(f"{REQUESTS}?subject=usr_1")).text)["items"] == []
