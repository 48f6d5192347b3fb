"""Secrets change under those who use them: the database's password, key-encryption keys, a provider's API key."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from codeagent.cli import secrets as composition
from codeagent.cli.kek_file import add_key, reseal_all
from codeagent.cli.models import Models
from codeagent.cli.parts import role_database
from codeagent.cli.subject_keys import sealing_box
from codeagent.encryption import NotOpened, SecretBox, new_key_line, parse_keys
from codeagent.errors import Unavailable
from codeagent.eventlog.database import SERVICE_ROLE, Database
from codeagent.eventlog.sealed import SealedColumn
from codeagent.messages.conversation import UserMessage
from codeagent.providers.protocol import ModelRequest
from codeagent.secrets.store import SecretStore
from codeagent.settings import Settings, read_settings
from codeagent.subjects.keys import SubjectKeys
from tests.servers.model_server import ModelServer
from tests.servers.script import Reply, Script
from tests.services.postgres import PostgresCluster

NOTES = SealedColumn("sealed_notes", ("tenant_id", "id"), "secret", "{tenant_id}/sealed_notes/{id}/secret")
MOST_WAIT_SECONDS = 20.0


async def comes_true(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(MOST_WAIT_SECONDS):
        while not holds():
            await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CODEAGENT_DATABASE_URL", "CODEAGENT_KEK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CODEAGENT_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")


@asynccontextmanager
async def opened(role: str, settings: Settings) -> AsyncIterator[SecretStore]:
    store = await composition.open_secrets(role, settings)
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


async def test_a_new_password_of_the_database_is_taken_over_and_no_call_in_flight_is_lost(
    newest_database_url: str, postgres_18: PostgresCluster, tmp_path: Path
) -> None:
    """In the order that hurts: the server changes first, the file a moment later."""
    postgres_18.sql(f"CREATE ROLE rotating LOGIN PASSWORD 'the-first-password'; GRANT {SERVICE_ROLE} TO rotating")
    password = tmp_path / "password"
    password.write_text("the-first-password\n")
    server = newest_database_url.partition("@")[2]
    settings = read_settings(
        database_url=f"postgresql://rotating@{server}", database_password=f"file:{password}", database_connections=4
    )
    async with opened("relay", settings) as store:
        database = role_database("relay", settings, store, SubjectKeys())
        try:
            [first] = await database.fetch("SELECT pg_backend_pid() AS pid")
            in_flight = asyncio.create_task(database.fetch("SELECT pg_backend_pid() AS pid, pg_sleep(1.5)"))
            await asyncio.sleep(0.1)
            postgres_18.sql("ALTER ROLE rotating PASSWORD 'the-second-password'")
            # The one connection there is works; another one is not let in yet, which is told as something that passes.
            with pytest.raises(Unavailable, match="does not let us in") as refused:
                await database.fetch("SELECT 1")
            assert refused.value.code == "database_unavailable"
            password.write_text("the-second-password\n")
            await comes_true(lambda: store.get("database_password") == "the-second-password")
            [fresh] = await database.fetch("SELECT pg_backend_pid() AS pid")
            [kept] = await in_flight
            assert kept["pid"] == first["pid"] != fresh["pid"]
            # Busy connections are replaced when they come back.
            later = {(await database.fetch("SELECT pg_backend_pid() AS pid"))[0]["pid"] for _ in range(5)}
            assert first["pid"] not in later
        finally:
            await database.close()
            postgres_18.sql("DROP ROLE rotating")


class NotesUser:
    """Reads and writes sealed values all the time, as an edge does with the keys that its file has at the moment."""

    def __init__(self, database: Database, box: SecretBox) -> None:
        self.database, self.box = database, box
        self.used = 0
        self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while True:
            note = random.randrange(300)
            place = f"ten_a/sealed_notes/{note}/secret"
            if note % 3 == 0:
                sealed = self.box.seal(f"note {note}".encode(), place)
                await self.database.write("UPDATE sealed_notes SET secret = $1 WHERE id = $2", sealed, str(note))
            [row] = await self.database.fetch("SELECT secret FROM sealed_notes WHERE id = $1", str(note))
            assert self.box.open(row["secret"], place) == f"note {note}".encode()
            self.used += 1

    async def is_at_work(self) -> None:
        """Returns once it has done some more; raises what it met."""
        before = self.used
        await comes_true(lambda: self.used > before + 20 or self._task.done())
        if self._task.done():
            self._task.result()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_a_key_encryption_key_is_replaced_while_the_edge_uses_it_and_the_old_one_removed(
    newest_database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keks = tmp_path / "kek"
    add_key(keks, new_key_line("old"), first=True)
    assert keks.stat().st_mode & 0o777 == 0o600
    settings = read_settings(database_url=newest_database_url, kek=f"file:{keks}")
    environment = pytest.MonkeyPatch()
    environment.setenv("CODEAGENT_DATABASE_URL", newest_database_url)
    environment.setenv("CODEAGENT_KEK_FILE", str(keks))
    database = Database(newest_database_url, connections=4)
    async with opened("edge", settings) as store:
        box = sealing_box(store)
        assert box is not None
        await fill(database, box)
        user = NotesUser(database, box)
        try:
            await rotate(keks, store, user)
            assert await reseal_all(None, [NOTES]) == 0
            said = capsys.readouterr().out
            assert "300 sealed, 0 unreadable" in said
            assert "still needed beside new: no key" in said
            keks.write_text(keks.read_text().splitlines()[0] + "\n")
            await comes_true(lambda: "old:" not in store.get("kek"))
            await user.is_at_work()
            only_new = SecretBox(parse_keys(keks.read_text().splitlines()))
            for row in await database.fetch("SELECT id, secret FROM sealed_notes WHERE secret IS NOT NULL"):
                assert only_new.open(row["secret"], f"ten_a/sealed_notes/{row['id']}/secret").startswith(b"note ")
        finally:
            await user.stop()
            await database.close()
            environment.undo()


async def fill(database: Database, box: SecretBox) -> None:
    await database.write(
        "CREATE TABLE sealed_notes (tenant_id text, id text, secret bytea, PRIMARY KEY (tenant_id, id))"
    )
    await database.write(f"GRANT SELECT, UPDATE ON sealed_notes TO {SERVICE_ROLE}")
    for note in range(300):
        sealed = box.seal(f"note {note}".encode(), f"ten_a/sealed_notes/{note}/secret")
        await database.write("INSERT INTO sealed_notes VALUES ('ten_a', $1, $2)", str(note), sealed)
    await database.write("INSERT INTO sealed_notes VALUES ('ten_a', 'none', NULL)")


async def rotate(keks: Path, store: SecretStore, user: NotesUser) -> None:
    """As the operators' guide says: known everywhere first, in front after that."""
    await user.is_at_work()
    add_key(keks, new_key_line("new"), first=False)
    await comes_true(lambda: "new:" in store.get("kek"))
    await user.is_at_work()
    keks.write_text("".join(f"{line}\n" for line in reversed(keks.read_text().splitlines())))
    await comes_true(lambda: store.get("kek").startswith("new:"))
    await user.is_at_work()


async def test_values_that_no_key_opens_are_counted_and_left_alone(
    newest_database_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(newest_database_url, connections=2)
    lost, kept = parse_keys([new_key_line("lost")]), new_key_line("kept")
    await fill(database, SecretBox(lost))
    monkeypatch.setenv("CODEAGENT_DATABASE_URL", newest_database_url)
    monkeypatch.setenv("CODEAGENT_KEK", kept)
    try:
        assert await reseal_all(None, [NOTES]) == 1
        assert "0 resealed, 0 sealed, 300 unreadable" in capsys.readouterr().out
        [row] = await database.fetch("SELECT secret FROM sealed_notes WHERE id = '7'")
        assert SecretBox(lost).open(row["secret"], "ten_a/sealed_notes/7/secret") == b"note 7"
        with pytest.raises(NotOpened):
            SecretBox(parse_keys([kept])).open(row["secret"], "ten_a/sealed_notes/7/secret")
    finally:
        await database.close()


async def test_a_new_key_of_a_provider_is_used_from_the_next_call_and_the_one_in_flight_ends(tmp_path: Path) -> None:
    providers = tmp_path / "providers.json"
    with ModelServer(script=Script([Reply(text="hello", delay_seconds=1.0)] * 2), accepted_keys={"key-one"}) as server:

        def write(key: str) -> None:
            entry: dict[str, Any] = {"name": "local", "kind": "openai", "base_url": server.openai_url, "api_key": key}
            providers.write_text(json.dumps([{**entry, "context_window": 100_000}]))

        write("key-one")
        settings = read_settings(database_url="postgresql://h/d", providers_file=providers)
        async with opened("provider-worker", settings) as store:
            models = Models(settings.providers(), composition.provider_keys(store))
            model, name = models.resolve("local/m")
            request = ModelRequest(model=name, messages=(UserMessage(text="hi"),), max_output_tokens=10)

            async def call() -> str:
                async def on_text(_: str) -> None: ...

                return (await model.generate(request, on_text)).message.text

            in_flight = asyncio.create_task(call())
            await comes_true(lambda: len(server.received) == 1)
            write("key-two")
            await comes_true(lambda: store.get("provider.local") == "key-two")
            server.accepted_keys = {"key-two"}
            assert (await call(), await in_flight) == ("hello", "hello")
            assert [call.api_key for call in server.received] == ["key-one", "key-two"]
            await models.close()
