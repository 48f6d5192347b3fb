"""Webhooks over HTTP: made for places that may be reached, secrets shown once, changes decided on what is so."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2

from codeagent import clock
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import leaf_of
from tests.integration.edge.gateway import Edge, Keys, running_edge

BODY = {"url": "http://127.0.0.1:9/hook?token=t0", "event_types": ["run.completed", "run.step.*"]}


async def post(edge: Edge, body: dict[str, Any], repeat: str | None = "k1", maker: str = "") -> httpx2.Response:
    headers = {} if repeat is None else {"Idempotency-Key": repeat}
    return await edge.call(maker or edge.keys.developer, "POST", "/v1/webhooks", json=body, headers=headers)


async def change(edge: Edge, method: str, path: str, version: int | None = None, **options: Any) -> httpx2.Response:
    headers = {} if version is None else {"If-Match": f'"{version}"'}
    return await edge.call(edge.keys.developer, method, path, headers=headers, **options)


def refused(answer: httpx2.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


async def test_a_webhook_is_made_with_a_secret_that_is_shown_once_and_kept_sealed(
    edge: Edge, newest_database_url: str
) -> None:
    answer = await post(edge, BODY)
    assert (answer.status_code, answer.headers["cache-control"], answer.headers["etag"]) == (201, "no-store", '"1"')
    made = answer.json()
    assert made["secret"].startswith("whsec_")
    assert (made["status"], made["payload_format"], made["disabled_reason"]) == ("enabled", "standard", "")
    assert made["url"] == BODY["url"]
    seen = await edge.call(edge.keys.owner, "GET", answer.headers["location"])
    assert seen.json() == {name: value for name, value in made.items() if name != "secret"}
    owner = Database(newest_database_url, connections=1)
    rows = await owner.fetch("SELECT webhooks::text || encode(secret, 'escape') FROM webhooks")
    await owner.close()
    assert made["secret"].removeprefix("whsec_") not in rows[0][0]


async def test_a_repeat_makes_no_second_webhook_and_does_not_show_the_secret_again(edge: Edge) -> None:
    answers = await asyncio.gather(*(post(edge, BODY) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    repeats = [answer for answer in answers if answer.status_code == 200]
    assert {(answer.headers["idempotent-replayed"], answer.json()["secret"]) for answer in repeats} == {("true", None)}
    assert refused(await post(edge, {**BODY, "event_types": ["*"]})) == (422, "idempotency_key_reused")
    assert refused(await post(edge, BODY, None)) == (400, "idempotency_key_missing")
    path = answers[0].headers["location"]
    assert (await change(edge, "DELETE", path, 1)).status_code == 204
    assert refused(await post(edge, BODY)) == (409, "conflict")


BAD_FIELDS: list[tuple[str, object]] = [
    ("url", ""),
    ("url", "x" * 2_001),
    ("event_types", []),
    ("event_types", ["run.complete"]),
    ("event_types", ["provider.call.ended"]),
    ("event_types", ["*"] * 51),
    ("payload_format", "xml"),
    ("description", "a\u0000b"),
    ("secret", "whsec_mine"),
]


async def test_what_cannot_be_a_webhook_is_refused_and_named(edge: Edge) -> None:
    for field, value in BAD_FIELDS:
        answer = await post(edge, {**BODY, field: value})
        assert refused(answer) == (422, "validation_failed"), field
        assert field in answer.json()["errors"][0]["pointer"]


PLACES = [
    "http://example.com/", "https://127.0.0.1/", "https://localhost/", "https://[::1]/", "https://10.0.0.1/",
    "https://169.254.169.254/latest/meta-data", "https://2130706433/", "https://0x7f.1/", "https://[::ffff:127.0.0.1]/",
    "https://[fd00:ec2::254]/", "https://100.64.0.1/", "https://nowhere.invalid/", "https://8.8.8.8:22/",
    "https://user:pass@8.8.8.8/", "ftp://8.8.8.8/", "javascript:alert(1)",
]  # fmt: skip


async def test_places_that_are_not_public_are_refused(
    newest_database_url: str, tmp_path: Path, file_keys: Keys
) -> None:
    async with running_edge(newest_database_url, tmp_path, file_keys, webhook_loopback=False) as edge:
        made = (await post(edge, {**BODY, "url": "https://8.8.8.8:8443/hook"})).json()
        for url in PLACES:
            answer = await post(edge, {**BODY, "url": url}, "another")
            assert refused(answer) == (422, "unsupported_webhook_url"), url
            assert answer.json()["errors"][0]["pointer"] == "/url"
            changed = await change(edge, "PATCH", f"/v1/webhooks/{made['id']}", 1, json={"url": url})
            assert refused(changed) == (422, "unsupported_webhook_url"), url


async def test_a_change_names_the_version_it_was_decided_on(edge: Edge) -> None:
    path = f"/v1/webhooks/{(await edge.make_webhook(edge.keys.developer))['id']}"
    for method, target, body in (("PATCH", path, {}), ("DELETE", path, None), ("POST", f"{path}/rotate-secret", None)):
        assert refused(await change(edge, method, target, json=body)) == (428, "precondition_required")
        assert refused(await change(edge, method, target, 2, json=body)) == (412, "version_mismatch")
    changes = [change(edge, "PATCH", path, 1, json={"description": str(number)}) for number in range(6)]
    statuses = [answer.status_code for answer in await asyncio.gather(*changes)]
    assert sorted(statuses) == [200, 412, 412, 412, 412, 412]


async def test_what_is_changed_is_changed_and_the_rest_stays(edge: Edge) -> None:
    made = await edge.make_webhook(edge.keys.developer, description="mine")
    path = f"/v1/webhooks/{made['id']}"
    disabled = (await change(edge, "PATCH", path, 1, json={"status": "disabled"})).json()
    assert (disabled["status"], disabled["disabled_reason"], disabled["description"]) == (
        "disabled",
        "requested",
        "mine",
    )
    patch = {
        "status": "enabled",
        "url": "http://127.0.0.1:10/",
        "event_types": ["run.*"],
        "payload_format": "cloudevents",
    }
    enabled = (await change(edge, "PATCH", path, 2, json=patch)).json()
    assert {name: enabled[name] for name in patch} == patch
    assert (enabled["disabled_reason"], enabled["version"], enabled["description"]) == ("", 3, "mine")
    assert (await edge.call(edge.keys.developer, "GET", path)).json() == enabled


async def test_every_change_is_a_fact_and_facts_hold_neither_secrets_nor_whole_urls(
    edge: Edge, newest_database_url: str
) -> None:
    made = await edge.make_webhook(edge.keys.developer, url="http://127.0.0.1:9/hook?token=t0")
    path = f"/v1/webhooks/{made['id']}"
    await change(edge, "PATCH", path, 1, json={"status": "disabled"})
    await change(edge, "PATCH", path, 2, json={"status": "enabled"})
    rotated = await change(edge, "POST", f"{path}/rotate-secret", 3, json={"overlap_seconds": 60})
    tested = await change(edge, "POST", f"{path}/test")
    await change(edge, "POST", f"{tested.headers['location']}/redeliver")
    await change(edge, "DELETE", path, 6)
    owner = Database(newest_database_url, connections=1)
    facts = await EventLog(owner).read_stream(f"webhook-{made['id']}")
    await owner.close()
    assert [fact.type.removeprefix("webhook.") for fact in facts] == [
        "created",
        "updated",
        "updated",
        "secret_rotated",
        "tested",
        "redelivery_requested",
        "deleted",
    ]
    assert all(fact.leaf_hash == leaf_of(fact) for fact in facts)
    assert facts[0].document()["origin"] == "http://127.0.0.1:9"
    assert {fact.metadata["authid"] for fact in facts} == {"usr_developer"}
    everything = b"".join(fact.data for fact in facts)
    for hidden in ("token=", made["secret"], rotated.json()["secret"]):
        assert hidden.encode() not in everything


async def test_a_rotated_secret_is_another_one_and_the_former_is_told_its_end(edge: Edge) -> None:
    made = await edge.make_webhook(edge.keys.developer)
    path = f"/v1/webhooks/{made['id']}/rotate-secret"
    answer = await change(edge, "POST", path, 1, json={"overlap_seconds": 3600})
    assert (answer.status_code, answer.headers["cache-control"], answer.headers["etag"]) == (200, "no-store", '"2"')
    rotated = answer.json()
    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != made["secret"]
    ends = datetime.fromisoformat(rotated["previous_until"]) - clock.now()
    assert timedelta(minutes=59) < ends <= timedelta(hours=1)
    assert refused(await change(edge, "POST", path, 2, json={"overlap_seconds": 8 * 86_400}))[1] == "validation_failed"


async def test_lists_are_read_page_by_page(edge: Edge) -> None:
    made = [(await edge.make_webhook(edge.keys.developer))["id"] for _ in range(5)]
    await edge.make_webhook(edge.keys.stranger)
    found: list[str] = []
    path: str | None = "/v1/webhooks?limit=2"
    while path:
        answer = await edge.call(edge.keys.developer, "GET", path)
        found += [item["id"] for item in answer.json()["items"]]
        assert (answer.json()["next_cursor"] is None) == ("link" not in answer.headers)
        path = answer.headers["link"].split(">")[0][1:] if "link" in answer.headers else None
    assert found == made[::-1]
    hook = f"/v1/webhooks/{made[0]}"
    tests = [(await change(edge, "POST", f"{hook}/test")).json()["id"] for _ in range(3)]
    first = await edge.call(edge.keys.developer, "GET", f"{hook}/deliveries?limit=2&state=pending")
    assert [item["id"] for item in first.json()["items"]] == [tests[2], tests[1]]
    rest = await edge.call(edge.keys.developer, "GET", first.headers["link"].split(">")[0][1:])
    assert [item["id"] for item in rest.json()["items"]] == [tests[0]]
    assert (await edge.call(edge.keys.developer, "GET", f"{hook}/deliveries?state=failed")).json()["items"] == []
    for bad in ("/v1/webhooks?cursor=x", f"{hook}/deliveries?cursor=whk_1"):
        assert refused(await edge.call(edge.keys.developer, "GET", bad)) == (400, "malformed_cursor")


async def test_a_test_is_a_delivery_and_a_delivery_can_be_asked_for_again(edge: Edge) -> None:
    hook = f"/v1/webhooks/{(await edge.make_webhook(edge.keys.developer))['id']}"
    answer = await change(edge, "POST", f"{hook}/test")
    delivery = answer.json()
    assert (answer.status_code, delivery["event_type"], delivery["state"]) == (202, "webhook.tested", "pending")
    seen = (await edge.call(edge.keys.developer, "GET", answer.headers["location"])).json()
    assert seen == {**delivery, "log": []}
    again = await change(edge, "POST", f"{answer.headers['location']}/redeliver")
    assert (again.status_code, again.json()["state"]) == (202, "pending")
    await change(edge, "PATCH", hook, 3, json={"status": "disabled"})
    for path in (f"{hook}/test", f"{answer.headers['location']}/redeliver"):
        assert refused(await change(edge, "POST", path)) == (409, "invalid_state_transition")


async def test_who_may_read_may_not_change(edge: Edge) -> None:
    hook = f"/v1/webhooks/{(await edge.make_webhook(edge.keys.developer))['id']}"
    reader = (await edge.make_key(edge.keys.developer, scopes=["webhooks:read"]))["key"]
    for path in ("/v1/webhooks", hook, f"{hook}/deliveries"):
        assert (await edge.call(reader, "GET", path)).status_code == 200
    for method, path in (("POST", "/v1/webhooks"), ("PATCH", hook), ("DELETE", hook), ("POST", f"{hook}/test")):
        assert refused(await edge.call(reader, method, path)) == (403, "insufficient_scope")


async def test_without_a_key_to_seal_secrets_with_there_are_no_webhooks(
    newest_database_url: str, tmp_path: Path, file_keys: Keys
) -> None:
    async with running_edge(newest_database_url, tmp_path, file_keys, kek=None) as edge:
        assert refused(await post(edge, BODY)) == (501, "not_implemented")
        assert (await edge.call(edge.keys.developer, "GET", "/v1/webhooks")).json() == {
            "items": [],
            "next_cursor": None,
        }
