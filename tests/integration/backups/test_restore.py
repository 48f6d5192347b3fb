"""A database comes back as it was at a moment, proved by its own log; what does not come back is told."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from codeagent.backups.repository import Layout
from codeagent.broker.admin import TopicAdmin, Wanted
from codeagent.broker.connection import KafkaConnection
from codeagent.broker.publisher import Publisher
from codeagent.broker.topics import AUDIT_CHECKPOINTS
from codeagent.cli.main import app
from codeagent.embedded.broker import EmbeddedBroker
from codeagent.transparency.directory import anchor_files
from tests.conftest import unavailable
from tests.integration.backups.story import FIRST, LAST, THEN, Story, ask, change, flip
from tests.integration.transparency.sealed import FOREIGN_KEY
from tests.services.postgres import installed_programs

COUNT = "SELECT count(*) FROM events"
ALL = FIRST + THEN + LAST


@pytest.fixture(scope="module")
def on_18() -> Iterator[Story]:
    yield from happened(Story(Layout.EMBEDDED, None))


@pytest.fixture(scope="module")
def on_15() -> Iterator[Story]:
    programs = installed_programs(15)
    if programs is None:
        unavailable("PostgreSQL 15 among the machine's packages")
    yield from happened(Story(Layout.SERVER, programs))


@pytest.fixture(params=["on_18", "on_15"])
def story(request: pytest.FixtureRequest) -> Iterator[Story]:
    """The PostgreSQL of `codeagent up`, and the oldest that is supported, as an operator runs it."""
    found: Story = request.getfixturevalue(request.param)
    yield found
    found.tidy()


@pytest.fixture
def newest(on_18: Story) -> Iterator[Story]:
    """Where it makes no difference."""
    yield on_18
    on_18.tidy()


def happened(story: Story) -> Iterator[Story]:
    try:
        story.happen()
        yield story
    finally:
        story.close()


def test_what_happened_up_to_a_moment_is_there_and_nothing_after_it(story: Story) -> None:
    done = story.restore("moment", "--at", story.moment)
    assert done.exit_code == 3, done.output
    assert f"log verified: {FIRST + THEN} entries, " in done.stdout
    assert f"SHORTER: entries {FIRST + THEN} to {ALL - 1}, signed in a checkpoint that was kept at 20" in done.stdout
    assert "timeline 2 begun" in done.stdout
    with story.running("moment") as server:
        assert asyncio.run(ask(server.address.url, COUNT)) == FIRST + THEN
        assert asyncio.run(ask(server.address.url, "SELECT max(leaf_index) FROM audit_leaves")) == FIRST + THEN - 1
        place = "SELECT pg_walfile_name(pg_current_wal_lsn())"
        assert str(asyncio.run(ask(server.superuser_address.url, place))).startswith("00000002")


async def publish_checkpoints(broker: EmbeddedBroker, anchors: Path) -> None:
    connection = KafkaConnection(broker.bootstrap_servers, "test", idempotent=False, fetch_wait_ms=20)
    await TopicAdmin(connection, replication=1, configurable=False).apply([Wanted(AUDIT_CHECKPOINTS, 1, {})])
    publisher = Publisher(connection)
    await publisher.start()
    for path in anchor_files(anchors):
        await publisher.send(AUDIT_CHECKPOINTS, "log", [], path.read_bytes())
    await publisher.stop()


def test_the_topic_tells_what_was_signed_beyond_the_end_where_there_is_no_directory(
    newest: Story, own_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(publish_checkpoints(own_broker, newest.anchors))
    for name, value in {
        "DATABASE_URL": "postgresql://nobody@nowhere/codeagent",
        "KAFKA_BOOTSTRAP_SERVERS": own_broker.bootstrap_servers,
        "KAFKA_IDEMPOTENT": "false",
    }.items():
        monkeypatch.setenv(f"CODEAGENT_{name}", value)
    known = "--anchors-from-topic"
    done = newest.restore("by-topic", "--at", newest.moment, known, anchors=False)
    assert done.exit_code == 3, done.output
    assert f"SHORTER: entries {FIRST + THEN} to {ALL - 1}, signed in a checkpoint that was kept at 20" in done.stdout
    assert "is not known" not in done.stdout
    assert newest.restore("all-by-topic", known, anchors=False).exit_code == 0
    own_broker.stop()
    done = newest.restore("no-topic", known, anchors=False)
    assert (done.exit_code, "the broker cannot be reached" in done.stderr) == (1, True), done.output
    assert newest.is_empty("no-topic")
    done = newest.restore("no-verify", known, "--no-verify", anchors=False)
    assert (done.exit_code, "not with --no-verify" in done.stderr) == (2, True), done.output


def test_without_an_archive_a_backup_is_what_it_was_when_it_was_taken(newest: Story) -> None:
    copy = newest.copy("alone")
    shutil.rmtree(copy.wal)
    done = newest.restore("from-alone", source=copy.root)
    assert done.exit_code == 3, done.output
    assert f"log verified: {FIRST} entries, " in done.stdout
    assert f"SHORTER: entries {FIRST} to {ALL - 1}, " in done.stdout


def test_without_a_moment_everything_that_was_archived_is_there(newest: Story) -> None:
    done = newest.restore("all")
    assert done.exit_code == 0, done.output
    assert f"log verified: {ALL} entries, " in done.stdout
    assert "3 of them kept elsewhere" in done.stdout
    assert "SHORTER" not in done.stdout


def test_the_newest_timeline_is_followed_and_what_it_has_left_behind_can_be_had(newest: Story) -> None:
    newest.restore("earlier", "--at", newest.moment)
    with newest.running("earlier", archives=True) as server:
        asyncio.run(change(server.address.url, 2))
    try:
        done = newest.restore("followed", anchors=False)
        assert done.exit_code == 0, done.output
        assert f"log verified: {FIRST + THEN + 2} entries, " in done.stdout
        assert "on timeline 2\n" in done.stdout
        assert "whether something newer was signed is not known" in done.stdout
        done = newest.restore("left-behind", "--timeline", 1)
        assert done.exit_code == 0, done.output
        assert f"log verified: {ALL} entries, " in done.stdout
        assert "timeline 3 begun" in done.stdout
    finally:
        for path in newest.repository.wal.glob("00000002*"):
            path.unlink()


def test_a_log_that_nobody_known_has_signed_is_not_called_sound(newest: Story) -> None:
    foreign = newest.state / "foreign.key"
    foreign.write_text(f"{FOREIGN_KEY.verifier}\n")
    done = newest.restore("foreign", "--keys", foreign, anchors=False)
    assert done.exit_code == 1
    assert "FAILED checkpoint_unknown_key at checkpoint 1" in done.stdout
    assert "log FAILED: " in done.stdout
    assert newest.target("foreign").exists(), "who restored it decides what comes of it"


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("--at", "2020-01-01T00:00:00Z"), 1, "before_first_backup: the earliest moment to restore to is 20"),
        (("--at", "2026-11-27 03:00:00"), 2, "malformed_moment: "),
        (("--timeline", "7"), 1, "timeline_unknown: "),
        (("--backup", "20200101T000000Z"), 1, "backup_not_found: "),
        (("--bin-dir", "/nowhere"), 1, "programs_missing: "),
        (("--keys", "/nowhere"), 2, "keys_missing: "),
    ],
)
def test_what_cannot_be_restored_is_refused_and_leaves_nothing(
    story: Story, words: tuple[str, ...], status: int, told: str
) -> None:
    done = story.restore("refused", *words)
    assert (done.exit_code, told in done.stderr) == (status, True), done.output
    assert "Traceback" not in done.output
    assert story.is_empty("refused")


def test_a_moment_that_the_archive_does_not_reach_is_told_with_the_last_that_it_does(newest: Story) -> None:
    done = newest.restore("beyond", "--at", "2030-01-01T00:00:00Z")
    assert done.exit_code == 1
    assert "wal_ends_before: the archive ends before that moment, its last transaction is of 20" in done.stderr
    assert newest.is_empty("beyond")


def test_a_directory_with_anything_in_it_is_not_touched(story: Story) -> None:
    target = story.target("taken")
    target.mkdir(exist_ok=True)
    (target / "PG_VERSION").write_text("18\n")
    done = story.restore("taken")
    assert done.exit_code == 1
    assert f"target_not_empty: {target} is not empty, it has PG_VERSION" in done.stderr
    assert [path.name for path in target.iterdir()] == ["PG_VERSION"]


def test_what_a_killed_restore_has_left_is_told_as_such(newest: Story) -> None:
    target = newest.target("killed")
    target.mkdir()
    (target / "restore-is-not-finished").touch()
    done = newest.restore("killed")
    assert done.exit_code == 1
    assert f"target_not_empty: {target} has what a restore left that was ended: remove it" in done.stderr


def test_a_flipped_bit_in_a_backup_is_refused_by_the_name_of_its_file(story: Story) -> None:
    copy = story.copy("flipped")
    flip(copy.files(story.label) / "global" / "pg_filenode.map", 20)
    done = story.restore("from-flipped", source=copy.root)
    assert done.exit_code == 1
    assert (
        f'backup_damaged: {story.label} is damaged: checksum mismatch for file "global/pg_filenode.map"' in done.stderr
    )
    assert story.is_empty("from-flipped")


def test_a_missing_segment_is_named_and_what_is_before_it_can_be_had(story: Story) -> None:
    copy = story.copy("holed")
    missing, ends = story.segments()[-2], story.moment
    (copy.wal / missing).unlink()
    done = story.restore("from-holed", source=copy.root)
    assert done.exit_code == 1
    assert f"wal_missing: segment {missing} is missing in the archive, or not whole: the 1 after it" in done.stderr
    done = story.restore("from-holed", "--at", ends, source=copy.root)
    assert (done.exit_code, f"wal_missing: segment {missing} is missing" in done.stderr) == (1, True), done.output
    done = story.restore("from-holed", "--incomplete", source=copy.root)
    assert done.exit_code == 3, done.output
    assert "NOT REPLAYED: 1 segments" in done.stdout
    assert f"SHORTER: entries {FIRST} to {ALL - 1}" in done.stdout


def test_the_list_tells_from_when_to_when_and_what_is_missing(newest: Story) -> None:
    def listed(source: Path) -> Result:
        return CliRunner().invoke(app, ["db", "list", "--from", str(source)])

    done = listed(newest.repository.root)
    assert (done.exit_code, done.stderr) == (0, "")
    label, *_, begins, ends = done.stdout.splitlines()[1].split()
    assert label == newest.label
    assert datetime.fromisoformat(begins) < datetime.fromisoformat(newest.moment) < datetime.fromisoformat(ends)
    copy = newest.copy("listed")
    (copy.wal / newest.segments()[-2]).unlink()
    done = listed(copy.root)
    assert done.exit_code == 1
    assert f"wal_missing: {newest.segments()[-2]} is not in {copy.wal}, the 1 after it are of no use" in done.stderr
    assert datetime.fromisoformat(done.stdout.splitlines()[1].split()[-1]) < datetime.fromisoformat(newest.moment)
    assert "backup_not_found" in listed(newest.state / "nowhere").stderr


@pytest.mark.parametrize("place", [-2, -1])
def test_a_flipped_bit_in_the_archive_does_not_pass_for_its_end(newest: Story, place: int) -> None:
    copy = newest.copy(f"bad{place}")
    segment = copy.wal / newest.segments()[place]
    flip(segment, segment.read_bytes().rindex(b"run.started"))
    done = newest.restore(f"from-bad{place}", source=copy.root)
    assert done.exit_code == 1
    assert (
        f"wal_damaged: the archive cannot be read to its end: segment {segment.name}, or the one after" in done.stderr
    )


def test_a_database_of_a_later_release_is_refused_before_anything_is_copied(newest: Story) -> None:
    copy = newest.copy("later")
    record = copy.record(newest.label)
    changed = json.loads(record.read_text()) | {"schema_version": "9999"}
    record.unlink()
    record.write_text(json.dumps(changed))
    done = newest.restore("from-later", source=copy.root)
    assert (done.exit_code, "schema_newer: the database has schema 9999" in done.stderr) == (1, True)
    record.write_text("{}")
    assert "backup_unreadable: " in newest.restore("from-later", source=copy.root).stderr
