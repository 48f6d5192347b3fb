"""`codeagent audit verify` and `audit key`, as an operator calls them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from codeagent.cli.main import app
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.projections.catalog import PROJECTIONS
from codeagent.transparency.anchoring import Anchorer
from codeagent.transparency.directory import DirectoryAnchor
from codeagent.transparency.keys import parse_log_keys
from codeagent.transparency.sealer import Sealer
from tests.integration.projections.logs import caught_up
from tests.integration.transparency.sealed import FOREIGN_KEY, KEY, KEYS, append_runs, newest, seal_all

CliCall = tuple[str, ...]


@pytest.fixture
async def kept(newest_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the checkpoint of a log of five entries that a command finds; one event is not sealed."""
    database = Database(newest_database_url, connections=2)
    await append_runs(database, 2)
    await seal_all(database, Sealer(database, KEYS))
    await append_runs(database, 3)
    await seal_all(database, Sealer(database, KEYS))
    assert await Anchorer(database, DirectoryAnchor(tmp_path / "anchors"), KEYS).anchor()
    (tmp_path / "public.key").write_text(f"{KEY.verifier}\n")
    (tmp_path / "note").write_text((await newest(database)).note)
    await append_runs(database, 1)
    await database.close()
    for name, value in {
        "DATABASE_URL": newest_database_url,
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "AUDIT_SIGNING_KEY": KEY.secret(),
    }.items():
        monkeypatch.setenv(f"CODEAGENT_{name}", value)
    return tmp_path


async def call(*arguments: object) -> Result:
    """Beside the loop of the test: the command has one of its own."""
    words = ["audit", "verify", *map(str, arguments), "--data-dir", "/nowhere"]
    return await asyncio.to_thread(CliRunner().invoke, app, words)


async def test_a_log_that_holds_is_said_to_and_what_was_looked_at(kept: Path) -> None:
    for arguments in (
        (),
        ("--anchors", kept / "anchors"),
        ("--checkpoint", kept / "note"),
        ("--keys", kept / "public.key"),
    ):
        done = await call(*arguments)
        assert done.exit_code == 0, done.output
        log, projections = done.stdout.splitlines()
        assert log.startswith("log verified: 5 entries, ")
        assert log.endswith("1 events are not sealed yet")
        assert projections == f"projections verified: none, of 0 events; not begun: {', '.join(PROJECTIONS)}"


async def test_a_range_is_verified_by_itself(kept: Path, newest_database_url: str) -> None:
    database = Database(newest_database_url, connections=1)
    await database.write("UPDATE events SET data = '{}' WHERE global_position = 2")
    await database.close()
    whole, before, after = [await call(*each) for each in ((), ("--to", 1), ("--from", 2))]
    assert (whole.exit_code, before.exit_code, after.exit_code) == (1, 0, 0), after.output
    assert whole.stdout.startswith("FAILED data_changed at entry 1 (event ")
    assert "1 problems in 5 entries" in whole.stderr
    assert before.stdout.startswith("log verified: 1 entries, 1 checkpoints")
    assert after.stdout.startswith("log verified: 3 entries, 1 checkpoints")


async def test_what_is_kept_from_the_log_is_verified_with_the_whole_of_it(kept: Path, newest_database_url: str) -> None:
    database = Database(newest_database_url, connections=2)
    for kind in PROJECTIONS.values():
        await caught_up(database, kind(database, EventLog(database)))
    sound = await call()
    assert sound.stdout.splitlines()[1:] == [f"projections verified: {', '.join(PROJECTIONS)}, of 6 events"]
    [row] = await database.write("UPDATE runs SET status = 'failed' WHERE version = 3 RETURNING run_id")
    await database.close()
    whole, log, part = [await call(*each) for each in ((), ("--no-projections",), ("--from", 2))]
    assert (whole.exit_code, log.exit_code, part.exit_code) == (1, 0, 0), whole.output
    assert whole.stdout.splitlines()[1:] == [
        f"FAILED projection_row_changed at row {row['run_id']} of runs of runs: the log says otherwise: status"
    ]
    assert "1 problems in projections" in whole.stderr
    assert "projections" not in log.stdout + part.stdout


async def test_an_event_that_cannot_be_read_is_named_once(kept: Path, newest_database_url: str) -> None:
    database = Database(newest_database_url, connections=2)
    for kind in PROJECTIONS.values():
        await caught_up(database, kind(database, EventLog(database)))
    await database.write("UPDATE events SET schema_version = 99 WHERE global_position = 1")
    await database.close()
    told = (await call()).stdout
    assert (told.count("event_unreadable"), told.count("projection_row_")) == (1, 5), told
    assert {line.partition(" ")[0] for line in told.splitlines()} == {"FAILED"}


async def test_another_logs_keys_vouch_for_nothing(kept: Path) -> None:
    (kept / "foreign.key").write_text(str(FOREIGN_KEY.verifier))
    done = await call("--keys", kept / "foreign.key")
    assert done.exit_code == 1
    assert done.stdout.count("FAILED checkpoint_unknown_key at checkpoint ") == 2
    assert "FAILED checkpoint_missing at entries 0 to 4" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--anchors", "/nowhere/at/all"), "there is no /nowhere/at/all"),
        (("--from", 3, "--to", 3), "--to has to be beyond --from"),
        (("--keys", __file__), "is no key of a log"),
        (("--from", 3, "--projections"), "projections are made of the whole log"),
        (("--export", __file__, "--projections"), "an export has no projections"),
    ],
)
async def test_what_cannot_be_verified_is_a_matter_of_usage(kept: Path, arguments: CliCall, told: str) -> None:
    done = await call(*arguments)
    assert (done.exit_code, told in done.stderr) == (2, True), done.output


async def test_without_a_key_nothing_can_be_verified(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CODEAGENT_AUDIT_SIGNING_KEY")
    done = await call()
    assert (done.exit_code, "give the log's keys with --keys" in done.stderr) == (2, True)


def test_a_new_key_is_a_secret_line_and_a_public_one() -> None:
    done = CliRunner().invoke(app, ["audit", "key", "log.example/audit"])
    keys = parse_log_keys([done.stdout, done.stderr])
    assert keys.signing[0].verifier == keys.verifying[1]
    assert CliRunner().invoke(app, ["audit", "key", "a name"]).exit_code == 2
