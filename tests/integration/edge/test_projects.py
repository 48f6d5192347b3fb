"""`/v1/projects`: made once, found, changed by those who have read them, archived and brought back."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from codeagent.encryption import SecretBox, new_key_line, parse_keys
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.sealed import SEALED_COLUMNS, reseal
from codeagent.messages.ids import project_stream
from codeagent.projects.git_credentials import SealedCredentials
from codeagent.sandboxes.protocol import GitCredential, SandboxFailure
from tests.integration.edge.defined_agents import define, move
from tests.integration.edge.gateway import KEK, MINE, OTHERS, Edge

SHOP = {"name": "shop", "repository": "https://git.example.org/team/shop.git"}
TOKEN = "glpat-not-to-be-seen"
_made = iter(range(1_000_000))


async def make(edge: Edge, key: str | None = None, **fields: Any) -> httpx2.Response:
    headers = {"Idempotency-Key": key or f"made-{next(_made)}"}
    return await edge.call(edge.keys.owner, "POST", "/v1/projects", json={**SHOP, **fields}, headers=headers)


async def patch(edge: Edge, project: dict[str, Any], **fields: Any) -> httpx2.Response:
    headers = {"If-Match": f'"{project["version"]}"'}
    return await edge.call(edge.keys.owner, "PATCH", f"/v1/projects/{project['id']}", json=fields, headers=headers)


async def get(edge: Edge, path: str) -> httpx2.Response:
    return await edge.call(edge.keys.owner, "GET", f"/v1/projects{path}")


@pytest.fixture
async def project(edge: Edge) -> dict[str, Any]:
    return dict((await make(edge)).json())


async def facts(url: str, project_id: str) -> list[str]:
    database = Database(url, connections=1)
    try:
        return [event.type for event in await EventLog(database).read_stream(project_stream(project_id))]
    finally:
        await database.close()


async def test_a_project_is_made_once_and_shown_as_it_was_asked_for(edge: Edge, newest_database_url: str) -> None:
    wanted = {
        "default_ref": "main",
        "model": "openai/gpt-5",
        "limits": {"max_steps": 20, "max_cost_usd": "1.50"},
        "verification": {"command": "make check", "protected": ["tests/"], "timeout_seconds": 60},
    }
    made = await make(edge, "k", **wanted, quotas={"max_concurrent_runs": 2})
    assert made.status_code == 201, made.text
    project = made.json()
    assert {name: project[name] for name in (*SHOP, *wanted)} == {**SHOP, **wanted}
    assert project["quotas"] == {"max_concurrent_runs": 2, "max_runs_per_day": None}
    assert (project["image"], project["archived"], project["git_credential"]) == ("default", False, None)
    assert made.headers["location"] == f"/v1/projects/{project['id']}"
    found = await get(edge, f"/{project['id']}")
    assert (found.json(), found.headers["etag"]) == (project, '"1"')
    repeat = await make(edge, "k", **wanted, quotas={"max_concurrent_runs": 2})
    assert (repeat.status_code, repeat.json(), repeat.headers["idempotent-replayed"]) == (200, project, "true")
    other = await make(edge, "k", default_ref="next")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert await facts(newest_database_url, project["id"]) == ["project.created"]


async def test_a_repeat_is_one_whatever_has_become_of_the_agent_since(edge: Edge) -> None:
    agent = await define(edge, "reviewer", {})
    await move(edge, "reviewer", "versions/1/promote")
    first = await make(edge, "k", agent="reviewer")
    await edge.call(edge.keys.owner, "DELETE", f"/v1/agents/{agent['id']}", headers={"If-Match": "*"})
    again = await make(edge, "k", agent="reviewer")
    assert (again.status_code, again.json()) == (200, first.json())
    assert (await make(edge, "other", name="other", agent="reviewer")).json()["code"] == "unsupported_agent"


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("repository", "http://git.example.org/a.git", "unsupported_git_url"),
        ("repository", "https://user:secret@git.example.org/a.git", "unsupported_git_url"),
        ("repository", "https://10.0.0.1/a.git", "unsupported_git_url"),
        ("default_ref", "a..b", "unsupported_git_ref"),
        ("agent", "nobody", "unsupported_agent"),
        ("image", "windows", "unsupported_image"),
        ("name", "", "string_too_short"),
        ("quotas", {"max_concurrent_runs": 0}, "greater_than_equal"),
        ("verification", {"command": ""}, "string_too_short"),
        ("verification", {"command": "make", "protected": ["../x"]}, "value_error"),
        ("color", "red", "extra_forbidden"),
    ],
)
async def test_what_cannot_be_accepted_is_named(edge: Edge, field: str, value: object, code: str) -> None:
    answer = await make(edge, **{field: value})
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert (error["code"], error["pointer"].split("/")[1]) == (code, field)


NO_DEPENDENCIES: list[tuple[dict[str, object], str, str]] = [
    ({"lock_files": []}, "/lock_files", "too_short"),
    ({"lock_files": ["a"] * 21}, "/lock_files", "too_long"),
    ({"lock_files": ["../a"]}, "/lock_files/0", "string_pattern_mismatch"),
    ({"lock_files": ["/etc/passwd"]}, "/lock_files/0", "string_pattern_mismatch"),
    ({"lock_files": ["a//b"]}, "/lock_files/0", "string_pattern_mismatch"),
    ({"lock_files": ["a/../b"]}, "/lock_files/0", "string_pattern_mismatch"),
    ({"install": ""}, "/install", "string_too_short"),
    ({"install": "make\0"}, "/install", "string_pattern_mismatch"),
    ({"registries": ["pypi.org"]}, "/registries", "extra_forbidden"),
]


async def test_what_is_no_way_to_install_is_named(edge: Edge) -> None:
    for wrong, pointer, code in NO_DEPENDENCIES:
        answer = await make(edge, dependencies={"install": "make", "lock_files": ["a"], **wrong})
        first = answer.json()["errors"][0]
        assert (answer.status_code, first["pointer"], first["code"]) == (422, f"/dependencies{pointer}", code), wrong


async def test_how_dependencies_are_installed_is_said_changed_and_taken_away(
    edge: Edge, newest_database_url: str
) -> None:
    pip = {"install": "pip install -r requirements.txt", "lock_files": ["requirements.txt", ".config/pins.txt"]}
    made = (await make(edge, dependencies=pip)).json()
    assert made["dependencies"] == pip
    renamed = (await patch(edge, made, name="store", dependencies=pip)).json()
    assert (renamed["name"], renamed["dependencies"]) == ("store", pip)
    npm = {"install": "cd /dependencies && npm ci", "lock_files": ["package-lock.json"]}
    changed = (await patch(edge, renamed, dependencies=npm)).json()
    assert changed["dependencies"] == npm
    unchanged = (await patch(edge, changed, dependencies=npm)).json()
    assert unchanged["version"] == changed["version"]
    cleared = (await patch(edge, unchanged, dependencies=None)).json()
    assert (await get(edge, f"/{made['id']}")).json()["dependencies"] is cleared["dependencies"] is None
    assert await facts(newest_database_url, made["id"]) == ["project.created", *["project.updated"] * 3]


async def test_the_list_is_newest_first_and_leaves_archived_ones_to_those_who_ask(edge: Edge) -> None:
    made = [(await make(edge, name=f"p{number}")).json() for number in range(3)]
    assert (
        await edge.call(edge.keys.owner, "DELETE", f"/v1/projects/{made[1]['id']}", headers={"If-Match": "*"})
    ).status_code == 204
    first = await get(edge, "?limit=1")
    assert [item["name"] for item in first.json()["items"]] == ["p2"]
    assert 'rel="next"' in first.headers["link"]
    rest = (await get(edge, f"?limit=5&cursor={first.json()['next_cursor']}")).json()
    assert ([item["name"] for item in rest["items"]], rest["next_cursor"]) == (["p0"], None)
    assert [item["name"] for item in (await get(edge, "?archived=true")).json()["items"]] == ["p1"]
    assert (await get(edge, "?cursor=nonsense")).json()["code"] == "malformed_cursor"


async def test_a_change_is_made_by_who_has_read_the_newest_version(edge: Edge, project: dict[str, Any]) -> None:
    path = f"/v1/projects/{project['id']}"
    bare = await edge.call(edge.keys.owner, "PATCH", path, json={"model": "a/b"})
    assert (bare.status_code, bare.json()["code"]) == (428, "precondition_required")
    answers = await asyncio.gather(*(patch(edge, project, model=f"m/{number}") for number in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]
    [changed] = [answer.json() for answer in answers if answer.status_code == 200]
    assert (changed["version"], changed["name"]) == (2, "shop")
    cleared = (await patch(edge, changed, model=None, limits={"max_steps": 3})).json()
    assert (cleared["model"], cleared["limits"]) == (None, {"max_steps": 3})
    judged = (await patch(edge, cleared, verification={"command": "make check"})).json()
    assert "conftest.py" in judged["verification"]["protected"]
    cleared = (await patch(edge, judged, verification=None)).json()
    assert (judged["version"], cleared["version"], cleared["verification"]) == (4, 5, None)
    same = await patch(edge, cleared, model=None)
    assert same.json() == cleared
    for nothing in ({}, {"name": None}):
        assert (await patch(edge, cleared, **nothing)).status_code == 422


async def test_a_name_is_taken_once_among_those_that_are_not_archived(edge: Edge, project: dict[str, Any]) -> None:
    taken = await make(edge)
    assert (taken.status_code, taken.json()["code"]) == (409, "conflict")
    other = (await make(edge, name="other")).json()
    assert (await patch(edge, other, name="shop")).json()["code"] == "conflict"
    path = f"/v1/projects/{project['id']}"
    bare = await edge.call(edge.keys.owner, "DELETE", path)
    assert (bare.status_code, bare.json()["code"]) == (428, "precondition_required")
    for _ in range(2):  # archiving what is archived changes nothing
        gone = await edge.call(edge.keys.owner, "DELETE", path, headers={"If-Match": '"1"'})
        assert gone.status_code == 204
    assert (await get(edge, f"/{project['id']}")).json()["archived"]
    successor = await make(edge)
    assert successor.status_code == 201
    back = await edge.call(edge.keys.owner, "POST", f"{path}/unarchive")
    assert (back.status_code, back.json()["code"]) == (409, "conflict")
    assert (await patch(edge, successor.json(), archived=True)).json()["archived"]
    back = await edge.call(edge.keys.owner, "POST", f"{path}/unarchive")
    assert (back.status_code, back.json()["archived"], back.json()["version"]) == (200, False, 3)


async def test_a_reader_changes_nothing(edge: Edge, project: dict[str, Any]) -> None:
    reader = (await edge.make_key(edge.keys.owner, scopes=["projects:read"]))["key"]
    assert (await edge.call(reader, "GET", f"/v1/projects/{project['id']}")).status_code == 200
    assert (await edge.call(reader, "POST", f"/v1/projects/{project['id']}/unarchive")).status_code == 403


async def credential(edge: Edge, project: dict[str, Any], **body: str) -> httpx2.Response:
    return await edge.call(edge.keys.owner, "PUT", f"/v1/projects/{project['id']}/git-credential", json=body)


@pytest.fixture
async def worker(newest_database_url: str) -> Any:
    """The database as a sandbox worker has it."""
    database = Database(newest_database_url, connections=1)
    yield database
    await database.close()


BOX = SecretBox(parse_keys([KEK]))


async def test_a_git_credential_is_written_and_never_read_but_by_a_worker(
    edge: Edge, project: dict[str, Any], worker: Database, newest_database_url: str
) -> None:
    answer = await credential(edge, project, token=TOKEN)
    assert (answer.status_code, answer.headers["etag"], answer.content) == (204, '"2"', b"")
    shown = await get(edge, f"/{project['id']}")
    assert shown.json()["git_credential"].keys() == {"username", "set_at"}
    assert TOKEN not in shown.text
    opened = SealedCredentials(worker, BOX).open
    assert await opened(MINE, project["id"], SHOP["repository"]) == GitCredential("x-access-token", TOKEN)
    assert await opened(OTHERS, project["id"], SHOP["repository"]) is None
    assert await opened(MINE, project["id"], "https://elsewhere.example/team/shop.git") is None
    await credential(edge, project, username="bot", token="second")
    assert await opened(MINE, project["id"], SHOP["repository"]) == GitCredential("bot", "second")
    for _ in range(2):
        path = f"/v1/projects/{project['id']}/git-credential"
        assert (await edge.call(edge.keys.owner, "DELETE", path)).status_code == 204
    assert await opened(MINE, project["id"], SHOP["repository"]) is None
    assert await facts(newest_database_url, project["id"]) == [
        "project.created",
        "project.git_credential.set",
        "project.git_credential.set",
        "project.git_credential.removed",
    ]


async def test_a_credential_does_not_follow_its_project_to_another_repository(
    edge: Edge, project: dict[str, Any], worker: Database
) -> None:
    await credential(edge, project, token=TOKEN)
    moved = "https://elsewhere.example/team/shop.git"
    changed = await patch(edge, {**project, "version": 2}, repository=moved)
    assert (changed.status_code, changed.json()["git_credential"]) == (200, None)
    await credential(edge, project, token=TOKEN)
    # Nor does the database's owner lead it there: it is sealed for the repository.
    await worker.write("UPDATE git_credentials SET repository = 'https://evil.example/r.git'")
    with pytest.raises(SandboxFailure) as caught:
        await SealedCredentials(worker, BOX).open(MINE, project["id"], "https://evil.example/r.git")
    assert caught.value.reason == "credential_unavailable"


async def test_a_credential_survives_the_key_that_sealed_it(
    edge: Edge, project: dict[str, Any], worker: Database
) -> None:
    await credential(edge, project, token=TOKEN)
    newer = SecretBox(parse_keys([new_key_line("newer"), KEK]))
    columns = [column for column in SEALED_COLUMNS if column.table == "git_credentials"]
    [done] = await reseal(worker, newer, columns)
    assert (done.resealed, dict(done.by_key)) == (1, {"newer": 1})
    opened = await SealedCredentials(worker, newer).open(MINE, project["id"], SHOP["repository"])
    assert opened == GitCredential("x-access-token", TOKEN)
    with pytest.raises(SandboxFailure) as caught:
        await SealedCredentials(worker, BOX).open(MINE, project["id"], SHOP["repository"])
    assert caught.value.reason == "credential_unavailable"


@pytest.mark.parametrize(
    "body", [{"token": ""}, {"token": "two words"}, {"token": "a\nb"}, {"token": "t", "username": "a:b"}]
)
async def test_a_credential_that_git_could_not_be_told_is_refused_without_repeating_it(
    edge: Edge, project: dict[str, Any], body: dict[str, str]
) -> None:
    answer = await credential(edge, project, **body)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert "two words" not in answer.text
