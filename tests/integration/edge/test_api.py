"""The edge: what it takes, what it refuses, and the stable code that says why."""

from __future__ import annotations

import asyncio
import io
import tarfile
import zipfile
from dataclasses import replace

import httpx2
import pytest

from tests.acceptance.checks import archive_of
from tests.integration.edge.conftest import MAX_BODY, Api

UNKNOWN = "sha256:" + "0" * 64


async def upload(client: httpx2.AsyncClient, data: bytes | None = None) -> httpx2.Response:
    return await client.post("/v1/artifacts", content=archive_of({"a.txt": "a"}) if data is None else data)


async def body(api: Api, **changes: object) -> dict[str, object]:
    digest = (await upload(api.http)).json()["digest"]
    return {"task": "Do it.", "source": {"kind": "archive", "digest": digest}, **changes}


def code(response: httpx2.Response) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    return str(response.json()["code"])


async def test_a_run_is_accepted_and_known_at_once(api: Api) -> None:
    response = await api.submit(await body(api))
    assert response.status_code == 202
    run_id = response.json()["id"]
    assert response.headers["location"] == f"/v1/runs/{run_id}"
    assert f'</v1/runs/{run_id}/events>; rel="monitor"' in response.headers["link"]
    known = await api.http.get(f"/v1/runs/{run_id}")
    assert known.status_code == 200
    assert (known.json()["status"], known.json()["task"]) == ("submitted", "Do it.")
    assert (await api.stranger.get(f"/v1/runs/{run_id}")).status_code == 404


async def test_the_same_key_and_body_name_the_same_run(api: Api) -> None:
    first = await api.submit(await body(api))
    again = await api.submit(await body(api), '"k1"')
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert again.headers["idempotent-replayed"] == "true"
    other = await api.submit(await body(api), "k2")
    assert other.json()["id"] != first.json()["id"]


async def test_repeats_at_the_same_moment_are_one_run(api: Api) -> None:
    wanted = await body(api)
    answers = await asyncio.gather(*(api.submit(wanted) for _ in range(10)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 202}) == 1


async def test_the_same_key_for_another_body_is_refused(api: Api) -> None:
    await api.submit(await body(api))
    assert code(await api.submit(await body(api, task="Something else."))) == "idempotency_key_reused"


async def test_two_tenants_may_use_the_same_key(api: Api) -> None:
    mine = await api.submit(await body(api))
    digest = (await upload(api.stranger)).json()["digest"]
    theirs = await api.stranger.post(
        "/v1/runs",
        json={"task": "Do it.", "source": {"kind": "archive", "digest": digest}},
        headers={"Idempotency-Key": "k1"},
    )
    assert theirs.status_code == 202
    assert theirs.json()["id"] != mine.json()["id"]


async def test_a_key_is_required(api: Api) -> None:
    assert code(await api.submit(await body(api), None)) == "idempotency_key_missing"


@pytest.mark.parametrize(
    ("changes", "status", "expected"),
    [
        ({"agent": "nobody"}, 422, "unsupported_agent"),
        ({"model": "openai/none"}, 422, "unsupported_model"),
        ({"surprise": 1}, 422, "validation_failed"),
        ({"task": ""}, 422, "validation_failed"),
        ({"task": 7}, 422, "validation_failed"),
        ({"limits": {"max_steps": 0}}, 422, "validation_failed"),
        ({"limits": {"max_stepz": 5}}, 422, "validation_failed"),
        ({"source": {"kind": "archive", "digest": UNKNOWN}}, 422, "unknown_artifact"),
        ({"source": {"kind": "git", "url": "http://example.org/a.git"}}, 422, "unsupported_git_url"),
        ({"source": {"kind": "git", "url": "ssh://git@example.org/a.git"}}, 422, "unsupported_git_url"),
        ({"source": {"kind": "git", "url": "file:///etc/passwd"}}, 422, "unsupported_git_url"),
        ({"source": {"kind": "git", "url": "https://user:pw@example.org/a.git"}}, 422, "unsupported_git_url"),
        ({"source": {"kind": "git", "url": "https://127.0.0.1/a.git"}}, 422, "unsupported_git_url"),
        ({"source": {"kind": "git", "url": "https://localhost/a.git"}}, 422, "unsupported_git_url"),
        (
            {"source": {"kind": "git", "url": "https://example.org/a.git", "ref": "--upload-pack=x"}},
            422,
            "validation_failed",
        ),
        ({"source": {"kind": "git", "url": "https://example.org/a.git", "ref": "a..b"}}, 422, "unsupported_git_ref"),
    ],
)
async def test_a_run_that_cannot_be_is_refused(
    api: Api, changes: dict[str, object], status: int, expected: str
) -> None:
    response = await api.submit(await body(api, **changes))
    assert (response.status_code, code(response)) == (status, expected)


async def test_malformed_json_is_refused(api: Api) -> None:
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    response = await api.http.post("/v1/runs", content=b'{"task": ', headers=headers)
    assert (response.status_code, code(response)) == (400, "malformed_request")


async def test_a_body_beyond_the_bound_is_refused(api: Api) -> None:
    response = await api.submit({"task": "x" * (MAX_BODY + 1)})
    assert (response.status_code, code(response)) == (413, "payload_too_large")

    async def endless() -> object:
        for _ in range(200):
            yield b"x" * 1_000

    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    streamed = await api.http.post("/v1/runs", content=endless(), headers=headers)
    assert (streamed.status_code, code(streamed)) == (413, "payload_too_large")


@pytest.mark.parametrize("key", ["", "cak_wrong", "cak_" + "a" * 36])
async def test_without_a_valid_key_nobody_is_let_in(api: Api, key: str) -> None:
    for path in ("/v1/runs", "/v1/runs/run_x", f"/v1/artifacts/{UNKNOWN}"):
        response = await api.http.get(path, headers={"X-API-Key": key, "Authorization": f"Bearer {key}"})
        assert (response.status_code, code(response)) == (401, "unauthenticated")
        assert response.headers["www-authenticate"].startswith("Bearer")


def tar_with(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        archive.addfile(info)
    return buffer.getvalue()


def zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("bomb", b"\0" * (100 << 20))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (tar_with("../outside"), "archive_path_outside"),
        (tar_with("/etc/passwd"), "archive_path_outside"),
        (tar_with("link", tarfile.SYMTYPE, "/etc/passwd"), "archive_link_outside"),
        (tar_with("link", tarfile.SYMTYPE, "../../etc/passwd"), "archive_link_outside"),
        (tar_with("pipe", tarfile.FIFOTYPE), "archive_special_file"),
        (b"this is no archive", "archive_unreadable"),
        (zip_bomb(), "archive_too_large"),
    ],
    ids=["outside", "absolute", "absolute link", "link outside", "pipe", "no archive", "bomb"],
)
async def test_a_hostile_archive_is_refused(api: Api, data: bytes, expected: str) -> None:
    response = await upload(api.http, data)
    assert (response.status_code, code(response)) == (422, expected)


async def test_an_upload_beyond_the_bound_is_refused(api: Api) -> None:
    response = await upload(api.http, b"\0" * ((1 << 20) + 1))
    assert (response.status_code, code(response)) == (413, "payload_too_large")


async def test_an_artifact_comes_back_whole_in_part_and_to_its_tenant_only(api: Api) -> None:
    digest = (await upload(api.http)).json()["digest"]
    whole = await api.http.get(f"/v1/artifacts/{digest}")
    assert whole.headers["repr-digest"].startswith("sha-256=:")
    part = await api.http.get(f"/v1/artifacts/{digest}", headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, whole.content[2:6])
    assert part.headers["content-range"] == f"bytes 2-5/{len(whole.content)}"
    tail = await api.http.get(f"/v1/artifacts/{digest}", headers={"Range": "bytes=-3"})
    assert tail.content == whole.content[-3:]
    beyond = await api.http.get(f"/v1/artifacts/{digest}", headers={"Range": "bytes=999999-"})
    assert beyond.status_code == 416
    cached = await api.http.get(f"/v1/artifacts/{digest}", headers={"If-None-Match": whole.headers["etag"]})
    assert cached.status_code == 304
    assert (await api.stranger.get(f"/v1/artifacts/{digest}")).status_code == 404


async def test_cursors_that_cannot_be_are_refused(api: Api) -> None:
    run_id = (await api.submit(await body(api))).json()["id"]
    for headers, expected in (
        ({"Last-Event-ID": "5"}, "cursor_past_head"),
        ({"Last-Event-ID": "x"}, "malformed_cursor"),
    ):
        for accept in ("application/json", "text/event-stream"):
            response = await api.http.get(f"/v1/runs/{run_id}/events", headers={**headers, "Accept": accept})
            assert (response.status_code, code(response)) == (400, expected)
    assert code(await api.http.get("/v1/runs?cursor=nonsense")) == "malformed_cursor"


@pytest.mark.parametrize("run_id", ["run_x", "nonsense", "run_" + "0" * 26, "run_" + "z" * 26])
async def test_an_unknown_run_is_not_found(api: Api, run_id: str) -> None:
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
        response = await api.http.request(method, f"/v1/runs/{run_id}{path}")
        assert (response.status_code, code(response)) == (404, "not_found")


async def test_a_path_that_leads_nowhere_is_told_as_such(api: Api) -> None:
    response = await api.http.get("/v1/nowhere")
    assert (response.status_code, code(response)) == (404, "not_found")
    assert response.json()["detail"] == "There is nothing under this path."


async def test_a_rule_of_ours_is_told_in_its_own_words(api: Api) -> None:
    (wrong,) = (await api.submit({**await body(api), "limits": {"max_cost_usd": "abc"}})).json()["errors"]
    assert wrong["pointer"] == "/limits/max_cost_usd"
    assert wrong["detail"] == 'an amount is a number, or text such as "2.50"'


async def test_every_answer_carries_the_security_headers_and_no_server_name(api: Api) -> None:
    for path in ("/livez", "/v1/runs", "/nowhere", "/openapi.json"):
        response = await api.http.get(path)
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
        assert "server" not in response.headers
        assert response.headers["x-request-id"]


async def test_metrics_name_the_route_and_no_id(api: Api) -> None:
    run_id = (await api.submit(await body(api))).json()["id"]
    await api.http.get(f"/v1/runs/{run_id}")
    text = (await api.http.get("/metrics")).text
    assert 'http_route="/v1/runs/{run_id}"' in text
    assert run_id not in text


async def test_without_a_database_the_edge_says_when_to_come_back(api: Api) -> None:
    wanted = await body(api)
    run_id = (await api.submit(wanted)).json()["id"]
    database_url, api.walled.url = api.walled.url, "postgresql://nobody:x@127.0.0.1:1/none"
    await api.walled.close()
    for response in (await api.submit(wanted, "other"), await api.http.get(f"/v1/runs/{run_id}")):
        assert (response.status_code, code(response)) == (503, "database_unavailable")
        assert int(response.headers["retry-after"]) > 0
    api.walled.url = database_url
    assert (await api.submit(wanted, "other")).status_code == 202


async def test_without_a_broker_a_command_is_refused_unless_the_database_keeps_it(api: Api, durable: bool) -> None:
    wanted = await body(api)
    await api.publisher.stop()
    response = await api.submit(wanted)
    if durable:
        assert response.status_code == 202
        assert len(api.handed_over) == 1
        return
    assert (response.status_code, code(response)) == (503, "broker_unavailable")
    assert int(response.headers["retry-after"]) > 0
    await api.publisher.start()
    again = await api.submit(wanted)
    assert again.status_code == 202
    assert "idempotent-replayed" not in again.headers


@pytest.mark.parametrize("durable", [False])
async def test_a_command_that_was_noted_and_not_sent_is_kept_once_the_database_keeps_commands(api: Api) -> None:
    """`durable_accept` is turned on between a publish that failed and its repeat: the row is there, its command not."""
    wanted = await body(api)
    await api.publisher.stop()
    assert (await api.submit(wanted)).status_code == 503
    state = api.http._transport.app.state  # type: ignore[attr-defined]  # the application itself
    state.context = replace(state.context, policy=replace(state.context.policy, durable_accept=True))
    again = await api.submit(wanted)
    assert again.status_code == 202
    [row] = await api.database.fetch("SELECT key FROM outbox")
    assert row["key"] == again.json()["id"] == api.handed_over[0].envelope.key
