"""The proof of the log over HTTP: verified by whoever gets it, with nothing but the log's public key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from typer.testing import CliRunner, Result

from codeagent import clock
from codeagent.cli.main import app
from codeagent.eventlog.database import Database
from codeagent.transparency.checkpoints import open_checkpoint
from codeagent.transparency.notes import decoded
from codeagent.transparency.proof_text import LogProof
from codeagent.transparency.proofs import ProofRejected, check_consistency
from codeagent.transparency.sealer import Sealer
from tests.integration.edge.auditing import catch_up, lines
from tests.integration.edge.gateway import MINE, OTHERS, Edge
from tests.integration.transparency.sealed import KEY, KEYS, ORIGIN, append_runs, newest, seal_all


@pytest.fixture
async def owner(newest_database_url: str) -> AsyncIterator[Database]:
    opened = Database(newest_database_url, connections=2)
    yield opened
    await opened.close()


async def events_of(database: Database, tenant: str) -> list[tuple[UUID, bytes]]:
    query = "SELECT event_id, leaf_hash FROM events WHERE tenant_id = $1 ORDER BY global_position"
    return [(row[0], row[1]) for row in await database.fetch(query, tenant)]


async def sealed(owner: Database) -> None:
    """Two checkpoints."""
    sealer = Sealer(owner, KEYS)
    await append_runs(owner, 2, tenant=MINE)
    await seal_all(owner, sealer)
    await append_runs(owner, 3, tenant=OTHERS)
    await seal_all(owner, sealer)


async def test_an_event_of_the_tenant_has_a_proof_that_its_leaf_hash_verifies(edge: Edge, owner: Database) -> None:
    await sealed(owner)
    *_, (_, other), (first, leaf) = await events_of(owner, MINE)
    answer = await edge.call(edge.keys.owner, "GET", f"/v1/audit/events/{first}/proof")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8"), answer.text
    proof = LogProof.parse(answer.text)
    assert proof.check(leaf, ORIGIN, [KEY.verifier]).size == (await newest(owner)).size
    with pytest.raises(ProofRejected):
        proof.check(other, ORIGIN, [KEY.verifier])


async def test_who_takes_a_proof_has_read_the_audit(edge: Edge, owner: Database, newest_database_url: str) -> None:
    await sealed(owner)
    *_, (event_id, _) = await events_of(owner, MINE)
    assert (await edge.call(edge.keys.owner, "GET", f"/v1/audit/events/{event_id}/proof")).status_code == 200
    [read] = await lines(edge, newest_database_url, edge.keys.owner, action="audit.read")
    assert (read["authid"], read["clientaddress"]) == ("usr_owner", "127.0.0.1")
    assert read["data"] == {"access": "proof", "filter": {"event_id": str(event_id)}}


async def test_what_is_not_the_tenants_has_none(edge: Edge, owner: Database) -> None:
    await sealed(owner)
    [(theirs, _), *_] = await events_of(owner, OTHERS)
    for event_id in (theirs, clock.new_uuid(), "x"):
        answer = await edge.call(edge.keys.owner, "GET", f"/v1/audit/events/{event_id}/proof")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_where_nothing_is_sealed_nobody_is_told_to_wait(edge: Edge, owner: Database) -> None:
    await append_runs(owner, 1, tenant=MINE)
    *_, (event_id, _) = await events_of(owner, MINE)
    answer = await edge.call(edge.keys.owner, "GET", f"/v1/audit/events/{event_id}/proof")
    assert (answer.status_code, answer.json()["detail"]) == (404, "No checkpoint has been signed.")


async def test_an_event_that_is_not_sealed_is_soon(edge: Edge, owner: Database) -> None:
    await sealed(owner)
    await append_runs(owner, 1, tenant=MINE)
    *_, (event_id, _) = await events_of(owner, MINE)
    answer = await edge.call(edge.keys.owner, "GET", f"/v1/audit/events/{event_id}/proof")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_sealed_yet")
    assert answer.headers["retry-after"] == "1"


async def test_the_newest_checkpoint_continues_an_older_one(edge: Edge, owner: Database) -> None:
    sealer = Sealer(owner, KEYS)
    empty = await edge.call(edge.keys.owner, "GET", "/v1/audit/checkpoint")
    assert (empty.status_code, empty.json()["code"]) == (404, "not_found")
    notes = []
    for count in (3, 4):
        await append_runs(owner, count)
        await seal_all(owner, sealer)
        notes.append((await edge.call(edge.keys.owner, "GET", "/v1/audit/checkpoint")).text)
    old, new = (open_checkpoint(note, ORIGIN, [KEY.verifier]) for note in notes)
    answer = (await edge.call(edge.keys.owner, "GET", f"/v1/audit/consistency?from={old.size}&to={new.size}")).json()
    check_consistency(old.size, new.size, [decoded(text) for text in answer["hashes"]], old.root, new.root)
    assert (await edge.call(edge.keys.owner, "GET", "/v1/audit/keys")).text == f"{KEY.verifier}\n"


@pytest.mark.parametrize("query", ["from=2&to=1", "from=1&to=900", "from=0&to=1", "from=x&to=1", "to=1"])
async def test_there_is_no_consistency_of_what_never_was(edge: Edge, owner: Database, query: str) -> None:
    await append_runs(owner, 2)
    await seal_all(owner, Sealer(owner, KEYS))
    answer = await edge.call(edge.keys.owner, "GET", f"/v1/audit/consistency?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


async def test_a_log_that_is_not_whole_says_so(edge: Edge, owner: Database) -> None:
    await append_runs(owner, 3, tenant=MINE)
    await seal_all(owner, Sealer(owner, KEYS))
    await owner.write("ALTER TABLE audit_tiles DISABLE TRIGGER ALL")
    await owner.write("DELETE FROM audit_tiles")
    *_, (event_id, _) = await events_of(owner, MINE)
    for path in (f"/v1/audit/events/{event_id}/proof", "/v1/audit/consistency?from=1&to=3"):
        answer = await edge.call(edge.keys.owner, "GET", path)
        assert (answer.status_code, answer.json()["code"]) == (503, "log_not_whole")


async def test_an_export_with_proofs_verifies_without_the_database(
    edge: Edge, owner: Database, newest_database_url: str, tmp_path: Path
) -> None:
    await edge.make_key(edge.keys.owner)
    await append_runs(owner, 2, tenant=MINE)
    await seal_all(owner, Sealer(owner, KEYS))
    await edge.make_key(edge.keys.owner)
    await catch_up(newest_database_url)
    answer = await edge.call(edge.keys.owner, "GET", "/v1/audit/export?proofs=true")
    assert answer.status_code == 200
    (tmp_path / "audit.jsonl").write_text(answer.text)
    (tmp_path / "changed.jsonl").write_text(answer.text.replace("usr_owner", "usr_other"))
    (tmp_path / "log.key").write_text(str(KEY.verifier))
    done = await verify(tmp_path, "audit.jsonl")
    lines = answer.text.count("\n") - 1
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"export verified: {lines} lines, 1 of them not sealed when they were exported, ")
    changed = await verify(tmp_path, "changed.jsonl")
    assert changed.exit_code == 1
    assert "FAILED attributes_changed at line " in changed.stdout
    assert "FAILED export_cut at the file" in changed.stdout


async def test_an_export_in_the_ocsf_schema_verifies_too_and_is_refused_without_proofs(
    edge: Edge, owner: Database, newest_database_url: str, tmp_path: Path
) -> None:
    await edge.make_key(edge.keys.owner)
    await append_runs(owner, 2, tenant=MINE)
    await seal_all(owner, Sealer(owner, KEYS))
    await catch_up(newest_database_url)
    path = "/v1/audit/export?format=ocsf"
    proving, plain = [await edge.call(edge.keys.owner, "GET", f"{path}{more}") for more in ("&proofs=true", "")]
    (tmp_path / "log.key").write_text(str(KEY.verifier))
    (tmp_path / "audit.jsonl").write_text(proving.text)
    (tmp_path / "changed.jsonl").write_text(proving.text.replace('"uid":"usr_owner"', '"uid":"usr_other"'))
    (tmp_path / "plain.jsonl").write_text(plain.text)
    done = await verify(tmp_path, "audit.jsonl")
    assert done.exit_code == 0, done.output
    changed = await verify(tmp_path, "changed.jsonl")
    assert (changed.exit_code, "FAILED rendering_changed at line " in changed.stdout) == (1, True)
    refused = await verify(tmp_path, "plain.jsonl")
    assert (refused.exit_code, "OCSF is a rendering: what verifies are CloudEvents" in refused.stdout) == (1, True)


async def verify(folder: Path, name: str) -> Result:
    words = ["audit", "verify", "--export", str(folder / name), "--keys", str(folder / "log.key")]
    return await asyncio.to_thread(CliRunner().invoke, app, words)


async def test_the_command_line_shows_a_proof(edge: Edge, owner: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await sealed(owner)
    *_, (event_id, leaf) = await events_of(owner, MINE)
    monkeypatch.setenv("CODEAGENT_URL", str(edge.http.base_url))
    monkeypatch.setenv("CODEAGENT_API_KEY", edge.keys.owner)
    shown = await asyncio.to_thread(CliRunner().invoke, app, ["audit", "proof", str(event_id)])
    assert LogProof.parse(shown.stdout).check(leaf, ORIGIN, [KEY.verifier])
    refused = await asyncio.to_thread(CliRunner().invoke, app, ["audit", "proof", "x"])
    assert (refused.exit_code, "There is no such event" in refused.stderr) == (2, True)
