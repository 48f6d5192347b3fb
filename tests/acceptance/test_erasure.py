"""A person is erased while a run of theirs is at work: nothing of them is left to be read, wherever one looks."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codeagent.cli.databases import command_database
from codeagent.cli.operate import load_settings
from codeagent.cli.secrets import open_secrets
from codeagent.cli.transparency import log_keys
from codeagent.eventlog.log import COLUMNS
from codeagent.eventlog.sealing import open_events
from codeagent.eventlog.stored import StoredEvent, from_row
from codeagent.privacy.certificate import read_certificate
from codeagent.subjects.key import key_id_of
from tests.acceptance.conversations import line_writer, tool
from tests.acceptance.people import Person, colleague, owner_of
from tests.acceptance.system import UpSystem, codeagent
from tests.servers.model_server import ModelServer
from tests.servers.script import Reply, Script

TASK, TITLE, FILE = "canary-task-7QzX", "canary-title-8RwV", "canary-file-9StU"
REPLY, OUTPUT, KEY = "canary-reply-1AbC", "canary-output-2DeF", "canary-key-3GhI"
EMAIL, REASON = "canary-mail-4jkl@example.org", "canary-reason-5MnO"
COMMENT, STOPPED = "canary-comment-6PqR", "canary-stopped-7StU"
CANARIES = (TASK, TITLE, FILE, REPLY, OUTPUT, KEY, EMAIL, REASON, COMMENT, STOPPED)
EXPORT = "/v1/privacy/requests/{}/export"


def talk(*, seconds: float) -> Script:
    """Says and writes the canaries; a call of the model takes so long."""
    replies = [
        Reply(text=f"{REPLY} {turn}", calls=(tool("shell", turn, command=f"cat note.txt; echo {OUTPUT} >> out.txt"),))
        for turn in range(3)
    ]
    last = Reply(calls=(tool("submit", 3, summary=f"{REPLY} at the end."),))
    return Script([*(replace(reply, delay_seconds=seconds) for reply in replies), last], "turn")


@pytest.fixture
def system(place: Path, providers_file: Path) -> Iterator[UpSystem]:
    running = UpSystem(place / "data", "--providers", str(providers_file), CODEAGENT_RECORD_CALLS="true")
    yield running
    running.stop()


async def ended(person: Person, run_id: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            run = (await person.call("GET", f"/v1/runs/{run_id}")).json()
            if run["status"] in {"completed", "failed", "canceled", "rejected"}:
                return dict(run)
            await asyncio.sleep(0.1)


async def carried_on(owner: Person, request: dict[str, Any], status: str) -> dict[str, Any]:
    path, match = f"/v1/privacy/requests/{request['id']}", f'"{request["version"]}"'
    answer = await owner.call("PATCH", path, match=match, json={"status": status})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def begun(owner: Person, kind: str, subject: str) -> dict[str, Any]:
    body = {"kind": kind, "subject": subject}
    made = await owner.call("POST", "/v1/privacy/requests", key=f"{kind}-{subject}", json=body)
    return await carried_on(owner, made.json(), "in_progress")


async def export_of(owner: Person, request: dict[str, Any]) -> bytes:
    """What a person gets, but for the moment at which it was made."""
    answer = await owner.call("GET", EXPORT.format(request["id"]))
    document = json.loads(answer.content)
    return answer.content.replace(document["made_at"].encode(), b"")


async def check_export(owner: Person, person: Person) -> None:
    """Whatever an erasure has to reach, a person gets."""
    exported = await export_of(owner, await begun(owner, "access", person.id))
    assert [canary for canary in CANARIES if canary.encode() not in exported] == []


async def everything_of(system: UpSystem) -> list[StoredEvent]:
    """The events as a copy of the log has them: nothing opened."""
    async with command_database(load_settings(system.data_dir)) as database:
        rows = await database.fetch(f"SELECT {COLUMNS} FROM events ORDER BY global_position")
        return [from_row(row) for row in rows]


async def opened(system: UpSystem, copy: list[StoredEvent]) -> bytes:
    """What that copy says with the keys of now."""
    async with command_database(load_settings(system.data_dir)) as database:
        return b"".join(event.data for event in await open_events(database.subjects, copy))


async def raw_key(system: UpSystem, subject: str) -> bytes:
    async with command_database(load_settings(system.data_dir)) as database:
        key_id = key_id_of(system.caller[0], subject)
        secret = (await database.subjects.named([key_id]))[key_id].secret
        assert secret is not None
        return secret


def holding(folder: Path, *needles: bytes) -> dict[str, set[bytes]]:
    """Files with one of these bytes in them, and which."""
    found: dict[str, set[bytes]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if held := {needle for needle in needles if needle in content}:
                found[str(path.relative_to(folder))] = held
    return found


async def lived(system: UpSystem, model_server: ModelServer, person: Person) -> str:
    """What somebody leaves behind: a session with a run that has ended, a key, a canceled run. The id of the first."""
    model_server.script = talk(seconds=0)
    session = await person.call("POST", "/v1/sessions", key="s", json={"title": TITLE})
    key = {"name": KEY, "scopes": ["runs:read"]}
    assert (await person.call("POST", "/v1/api-keys", key="k", json=key)).status_code == 201
    run_id = await person.run(TASK, {"note.txt": FILE}, "first", session_id=session.json()["id"])
    assert (await ended(person, run_id))["status"] == "completed"
    model_server.script = talk(seconds=30)
    second = await person.run(TASK, {"note.txt": FILE}, "second")
    assert (await person.call("POST", f"/v1/runs/{second}/cancel", json={"reason": REASON})).status_code == 202
    await ended(person, second)
    return run_id


async def interfered(model_server: ModelServer, person: Person, other: Person) -> tuple[str, str]:
    """What somebody writes in runs of others: why they refuse what one asks, and why they cancel another."""
    model_server.script = line_writer(2)
    asking = await other.run("ask me", {"note.txt": "another file"}, "asks", approvals={"tools": ["shell"]})
    await answered(person, asking, {"decision": "reject", "comment": COMMENT})
    await answered(person, asking, {"decision": "allow_once"})
    assert (await ended(other, asking))["status"] == "completed"
    model_server.script = talk(seconds=30)
    stopped = await other.run("stop me", {"note.txt": "another file"}, "stops")
    assert (await person.call("POST", f"/v1/runs/{stopped}/cancel", json={"reason": STOPPED})).status_code == 202
    assert (await ended(other, stopped))["message"] == STOPPED
    return asking, stopped


async def answered(person: Person, run_id: str, said: dict[str, str]) -> None:
    async with asyncio.timeout(60):
        while not (asked := (await person.call("GET", f"/v1/runs/{run_id}")).json()["pending_approvals"]):
            await asyncio.sleep(0.1)
    path = f"/v1/runs/{run_id}/approvals/{asked[0]['id']}"
    answer = await person.call("POST", path, key="a", match="*", json=said, headers={"Prefer": "wait=20"})
    assert answer.status_code == 200, answer.text


async def comments(owner: Person, run_id: str) -> set[str]:
    return {item["comment"] for item in (await owner.call("GET", f"/v1/runs/{run_id}/approvals")).json()["items"]}


async def certified(owner: Person, request: dict[str, Any]) -> str:
    async with asyncio.timeout(150):
        while True:
            answer = await owner.call("GET", f"/v1/privacy/requests/{request['id']}/certificate")
            if answer.status_code == 200:
                return answer.text
            assert answer.json()["code"] == "erasure_in_progress", answer.text
            await asyncio.sleep(0.2)


@pytest.mark.timeout(300)
async def test_nothing_is_left_of_an_erased_person(system: UpSystem, model_server: ModelServer) -> None:
    owner = await owner_of(system)
    person = await colleague(system, owner, EMAIL)
    other = await colleague(system, owner, "other@example.org")
    run_id = await lived(system, model_server, person)
    model_server.script = line_writer(2)
    theirs = await other.run("another task", {"note.txt": "another file"}, "theirs")
    await ended(other, theirs)
    asking, stopped = await interfered(model_server, person, other)
    assert COMMENT in await comments(owner, asking)
    await check_export(owner, person)
    access = await begun(owner, "access", other.id)
    before, copy = await export_of(owner, access), await everything_of(system)
    said = await opened(system, copy)
    assert [
        canary for canary in (TASK, FILE, REPLY, REASON, KEY, COMMENT, STOPPED) if canary.encode() not in said
    ] == []
    secret = await raw_key(system, person.id)
    model_server.script = talk(seconds=2)
    at_work = await person.run(TASK, {"note.txt": FILE}, "third")
    assert (await owner.call("GET", f"/v1/runs/{run_id}")).json()["task"] == TASK
    assert holding(system.data_dir / "artifacts", FILE.encode())

    request = await begun(owner, "erasure", person.id)
    text = await certified(owner, request)
    secrets = await open_secrets("", load_settings(system.data_dir), ("audit_signing_key",))
    told = read_certificate(text, log_keys(secrets.get("audit_signing_key")))
    assert (told["subject_id"], told["removed"]["runs_canceled"]) == (person.id, 1)
    assert told["removed"]["artifacts"] > 0
    assert (await carried_on(owner, request, "completed"))["status"] == "completed"

    await check_gone(owner, {run_id, at_work})
    assert await comments(owner, asking) == {""}
    assert (await owner.call("GET", f"/v1/runs/{stopped}")).json()["message"] == ""
    assert await export_of(owner, access) == before
    assert re.findall(rb".{60}canary.{40}", await opened(system, copy)) == []
    assert await asyncio.to_thread(verify, system) == (0, "")
    (system.data_dir.parent / "certificate.txt").write_text(text)
    system.stop()
    certificate = str(system.data_dir.parent / "certificate.txt")
    assert json.loads(await asyncio.to_thread(command, system, "certificate", certificate)) == told
    # What topics hold goes with their retention. Nothing else may depend on it.
    shutil.rmtree(system.data_dir / "broker")
    as_text = [secret.hex().encode(), base64.b64encode(secret)]
    found = holding(system.data_dir.parent, *(canary.encode() for canary in CANARIES), secret, *as_text)
    assert {name: held for name, held in found.items() if not name.endswith("providers.json")} == {}


async def check_gone(owner: Person, run_ids: set[str]) -> None:
    for each in run_ids:
        for path in ("", "/events", "/calls", "/artifacts", "/state?at=1"):
            gone = await owner.call("GET", f"/v1/runs/{each}{path}")
            assert (gone.status_code, gone.json().get("code")) == (410, "erased"), f"{path}: {gone.text}"
    listed = (await owner.call("GET", "/v1/runs")).json()["items"]
    assert {run["task"] for run in listed if run["id"] in run_ids} == {"[erased]"}


def command(system: UpSystem, *arguments: str) -> str:
    told = codeagent("privacy", *arguments, "--data-dir", str(system.data_dir))
    done = subprocess.run(told, capture_output=True, text=True, check=False)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, told, done.stdout, done.stderr)
    return done.stdout


@pytest.mark.timeout(240)
async def test_an_operator_exports_and_erases_from_the_terminal(system: UpSystem) -> None:
    owner = await owner_of(system)
    person = await colleague(system, owner, EMAIL)
    exported = json.loads(await asyncio.to_thread(command, system, "export", person.id))
    assert (exported["subject_id"], exported["user"]["email"]) == (person.id, EMAIL)
    path = system.data_dir.parent / "certificate.txt"
    await asyncio.to_thread(command, system, "erase", person.id, "--to", str(path))
    assert json.loads(await asyncio.to_thread(command, system, "certificate", str(path)))["subject_id"] == person.id
    path.write_text(path.read_text().replace(person.id, owner.id))
    with pytest.raises(subprocess.CalledProcessError) as refused:
        await asyncio.to_thread(command, system, "certificate", str(path))
    assert refused.value.stdout.startswith("FAILED ")
    listed = await asyncio.to_thread(command, system, "status", "--subject", person.id)
    assert [line.split()[1:3] for line in listed.splitlines()] == [["erasure", "completed"], ["access", "in_progress"]]
    assert (await person.call("GET", "/v1/me")).status_code == 401


def verify(system: UpSystem) -> tuple[int, str]:
    done = subprocess.run(
        codeagent("audit", "verify", "--data-dir", str(system.data_dir)), capture_output=True, text=True, check=False
    )
    return done.returncode, "".join(line for line in done.stdout.splitlines() if line.startswith("FAILED"))
