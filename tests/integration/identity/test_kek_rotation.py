"""The key-encryption key is replaced while an edge logs users in, and the old one is taken away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from codeagent.cli.kek_file import add_key, reseal_all
from codeagent.cli.secrets import open_secrets
from codeagent.cli.subject_keys import sealing_box
from codeagent.encryption import NotOpened, SecretBox, new_key_line, parse_keys
from codeagent.eventlog.database import Database
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.identity.keys import KeyRing
from codeagent.identity.tenants import FirstTenant, bootstrap
from codeagent.secrets.store import SecretStore
from codeagent.settings import read_settings
from tests.integration.identity.conftest import EMAIL, PASSWORD, TENANT, Edge, cheap_passwords, make_edge
from tests.integration.identity.oauth_client import OAuthClient


async def comes_true(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.02)


@pytest.fixture
def keks(tmp_path: Path, newest_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key file with one key, named by this process's environment as operators do."""
    path = tmp_path / "kek"
    add_key(path, new_key_line("old"), first=True)
    monkeypatch.setenv("CODEAGENT_DATABASE_URL", newest_database_url)
    monkeypatch.setenv("CODEAGENT_KEK_FILE", str(path))
    monkeypatch.setenv("CODEAGENT_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    return path


def from_file(keks: Path) -> SecretBox:
    return SecretBox(parse_keys(keks.read_text().splitlines()))


@asynccontextmanager
async def edge_with(walled: Database, box: SecretBox, folder: Path) -> AsyncIterator[Edge]:
    edge = make_edge(walled, KeyRing({}), folder, box=box)
    await edge.users.keys.refresh()
    await edge.revocations.start()
    try:
        yield edge
    finally:
        await edge.revocations.stop()
        await edge.users.passwords.close()


class Visitor:
    """Logs in and looks around all the time; the first refusal ends it."""

    def __init__(self, edge: Edge) -> None:
        self.visits = 0
        self._edge = edge
        self._client = edge.client()
        self._task = asyncio.create_task(self._visit())

    async def _visit(self) -> None:
        while True:
            # From another address each time: one alone would soon have used up what strangers may ask for in a minute.
            client = self._edge.client(address=f"198.51.100.{self.visits % 250}")
            (await client.log_in(EMAIL, PASSWORD)).raise_for_status()
            (await client.get("/v1/me")).raise_for_status()
            self._client = client
            self.visits += 1

    async def is_at_work(self) -> None:
        before = self.visits
        await comes_true(lambda: self.visits > before + 1 or self._task.done())
        if self._task.done():
            self._task.result()

    async def stop(self) -> OAuthClient:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return self._client


async def replace_key(keks: Path, store: SecretStore, visitor: Visitor) -> None:
    """The four steps of the operators' guide."""
    await visitor.is_at_work()
    add_key(keks, new_key_line("new"), first=False)
    await comes_true(lambda: "new:" in store.get("kek"))
    await visitor.is_at_work()
    keks.write_text("".join(f"{line}\n" for line in reversed(keks.read_text().splitlines())))
    await comes_true(lambda: store.get("kek").startswith("new:"))
    assert await reseal_all(None) == 0
    await visitor.is_at_work()
    keks.write_text(keks.read_text().splitlines()[0])
    await comes_true(lambda: "old:" not in store.get("kek"))
    await visitor.is_at_work()


async def test_users_log_in_all_the_while_and_the_next_edge_needs_the_new_key_alone(
    keks: Path, newest_database_url: str, tmp_path: Path
) -> None:
    only_old, passwords = from_file(keks), cheap_passwords()
    database = Database(newest_database_url, connections=4)
    walled = Database(newest_database_url, connections=4, role=EDGE_ROLE)
    store = await open_secrets("edge", read_settings())
    await store.start()
    try:
        box = sealing_box(store)
        assert box is not None
        await bootstrap(database, box, passwords, FirstTenant(TENANT, "First", EMAIL, PASSWORD))
        async with edge_with(walled, box, tmp_path) as edge:
            visitor = Visitor(edge)
            try:
                await replace_key(keks, store, visitor)
            finally:
                visited = await visitor.stop()
        async with edge_with(walled, from_file(keks), tmp_path) as following:
            client = following.client()
            client.access = visited.access
            assert (await client.get("/v1/me")).status_code == 200
            assert (await client.log_in(EMAIL, PASSWORD)).status_code == 200
        with pytest.raises(NotOpened, match="'new' is not at hand"):
            async with edge_with(walled, only_old, tmp_path):
                pass
    finally:
        await store.stop()
        await passwords.close()
        await walled.close()
        await database.close()
