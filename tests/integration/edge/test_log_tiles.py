"""The log as static files over HTTP: for operators' auditors, and for programs that know c2sp.org/tlog-tiles alone."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from codeagent.eventlog.database import Database
from codeagent.transparency.checkpoints import open_checkpoint
from codeagent.transparency.sealer import Sealer
from codeagent.transparency.tiles import hashes_of
from tests.conftest import unavailable
from tests.integration.edge.gateway import Edge
from tests.integration.transparency.sealed import KEY, KEYS, ORIGIN, append_runs, leaves, missing, seal_all
from tests.unit.transparency import reference

CLIENT = Path(__file__).parents[2] / "unit" / "transparency" / "independent"
LOG = "/v1/audit/log"


@pytest.fixture
async def log(edge: Edge, newest_database_url: str) -> AsyncIterator[Database]:
    """Of 302 entries, with what the edge has to say of itself: a full tile, one of 46 hashes, and one of one above."""
    database = Database(newest_database_url, connections=2)
    await append_runs(database, 302 - await missing(database))
    await seal_all(database, Sealer(database, KEYS))
    yield database
    await database.close()


async def tile(edge: Edge, path: str) -> bytes:
    answer = await edge.call(edge.keys.operator, "GET", f"{LOG}/tile/{path}")
    assert answer.status_code == 200, (path, answer.text)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    return answer.content


async def test_the_tiles_beside_a_checkpoint_are_the_tree_that_it_signs(edge: Edge, log: Database) -> None:
    answer = await edge.call(edge.keys.operator, "GET", f"{LOG}/checkpoint")
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == (
        "text/plain; charset=utf-8",
        "no-store",
    )
    signed = open_checkpoint(answer.text, ORIGIN, [KEY.verifier])
    hashes = hashes_of(await tile(edge, "0/000")) + hashes_of(await tile(edge, "0/001.p/46"))
    assert hashes == await leaves(log)
    assert (signed.size, signed.root) == (302, reference.mth(hashes))
    assert await tile(edge, "1/000.p/1") == reference.mth(hashes[:256])


async def test_every_width_that_there_ever_was_is_there(edge: Edge, log: Database) -> None:
    whole = await tile(edge, "0/000")
    for width in (1, 5, 255):
        assert await tile(edge, f"0/000.p/{width}") == whole[: width * 32]


NOT_THERE = (
    "0/001", "0/001.p/47", "0/002.p/1", "1/000", "1/000.p/2", "2/000.p/1", "63/000", "0/x999/x999/x999/x999/x999/999",
    "entries/000", "data/000", "0/0", "00/000", "0/000.p/0", "0/000.p/256", "0/000.p/046", "0/x000/000", "0/-01",
    "0/000/", "0/000.p/1/", "99999999999999999999/000", "0/%2e%2e/000", "0/\u0660\u0660\u0660",
)  # fmt: skip


async def test_what_the_log_does_not_have_is_nothing(edge: Edge, log: Database) -> None:
    answers = [await edge.call(edge.keys.operator, "GET", f"{LOG}/tile/{path}") for path in NOT_THERE]
    told = {path: (answer.status_code, answer.json()["code"]) for path, answer in zip(NOT_THERE, answers, strict=True)}
    assert told == dict.fromkeys(NOT_THERE, (404, "not_found"))


async def test_no_tenant_sees_the_log_of_all(edge: Edge, log: Database) -> None:
    for path in ("checkpoint", "tile/0/000"):
        answer = await edge.call(edge.keys.owner, "GET", f"{LOG}/{path}")
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


@pytest.mark.skipif("CODEAGENT_TEST_GO" not in os.environ, reason="CODEAGENT_TEST_GO=1 asks for it")
async def test_another_implementation_follows_the_log(edge: Edge, log: Database, tmp_path: Path) -> None:
    """It reads tiles, verifies each against the checkpoint, and proves every entry from them."""
    if shutil.which("go") is None:
        unavailable("Go, for the other implementation")
    folder = shutil.copytree(CLIENT, tmp_path / "independent")
    url = f"{str(edge.http.base_url).rstrip('/')}{LOG}"
    process = await asyncio.create_subprocess_exec(
        "go", "run", "./follow", url, str(KEY.verifier), edge.keys.operator,
        cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told, problems = await process.communicate()
    assert process.returncode == 0, problems.decode()
    assert [bytes.fromhex(line) for line in told.decode().split()] == await leaves(log)
