"""The secrets of the moment: files and a vault that change while somebody works with what they gave."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from codeagent.secrets.references import Given, InFile, InVault, Reference, SecretUnavailable
from codeagent.secrets.store import SecretStore
from codeagent.secrets.vault import Token, Vault, VaultAddress
from tests.servers.vault import VaultServer

LOOK = 0.01


@pytest.fixture
def server() -> Iterator[VaultServer]:
    with VaultServer(stored={"a": {"one": "1", "two": "2"}}) as running:
        yield running


@asynccontextmanager
async def watching(references: Mapping[str, Reference], vault: Vault | None = None) -> AsyncIterator[SecretStore]:
    store = SecretStore(references, vault, look_every_seconds=LOOK)
    assert await store.load() == {}
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


async def comes_true(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(LOOK)


def replace(path: Path, text: str) -> None:
    """As `kubelet` and careful operators do."""
    path.with_name("new").write_text(text)
    path.with_name("new").replace(path)


@pytest.mark.parametrize("write", [Path.write_text, replace], ids=["in place", "renamed over"])
async def test_a_changed_file_is_taken_over_and_told(tmp_path: Path, write: Callable[[Path, str], object]) -> None:
    file = tmp_path / "x"
    file.write_text("old\n")
    told: list[str] = []
    async with watching({"x": InFile(file), "y": Given("same")}) as store:

        async def tell() -> None:
            told.append(store.get("x"))

        store.watch("x", tell)
        write(file, "new\n")
        await comes_true(lambda: told == ["new"])
        assert store.values() == {"x": "new", "y": "same"}


async def test_a_change_of_the_same_length_at_the_same_time_is_seen_as_well(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text("one")
    async with watching({"x": InFile(file)}) as store:
        stamp = file.stat()
        file.write_text("two")
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        await comes_true(lambda: store.get("x") == "two")


async def test_a_file_that_cannot_be_used_leaves_the_secret_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text("good")
    async with watching({"x": InFile(file), "other": InFile(tmp_path / "x", str.upper)}) as store:
        file.write_text("")
        await asyncio.sleep(LOOK * 5)
        file.unlink()
        await asyncio.sleep(LOOK * 5)
        assert store.get("x") == "good"
        file.write_text("better")
        await comes_true(lambda: store.get("x") == "better" and store.get("other") == "BETTER")


async def test_somebody_who_cannot_take_a_change_over_stops_nobody_else(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text("old")
    told: list[str] = []

    async def fails() -> None:
        raise RuntimeError("not today")

    async with watching({"x": InFile(file)}) as store:
        store.watch("x", fails)

        async def tell() -> None:
            told.append(store.get("x"))

        store.watch("x", tell)
        for text in ("new", "newer"):
            replace(file, text)
            await comes_true(lambda text=text: told[-1:] == [text])


async def test_the_vault_is_asked_again_when_its_time_has_passed(server: VaultServer) -> None:
    vault = Vault(VaultAddress(server.url), lambda: Token("hvs.root-of-the-test"), ttl_seconds=0.05)
    async with watching({"x": InVault("a", "one"), "y": InVault("a", "two")}, vault) as store:
        assert store.values() == {"x": "1", "y": "2"}
        server.stored["a"] = {"one": "11", "two": "22"}
        await comes_true(lambda: store.values() == {"x": "11", "y": "22"})
        server.faults = [503] * 3
        await comes_true(lambda: not server.faults)
        server.stored["a"] = {"one": "111", "two": "22"}
        await comes_true(lambda: store.values() == {"x": "111", "y": "22"})


async def test_whoever_was_refused_makes_the_vault_be_asked_at_once_but_not_all_the_time(server: VaultServer) -> None:
    vault = Vault(VaultAddress(server.url), lambda: Token("hvs.root-of-the-test"), ttl_seconds=3600)
    async with watching({"x": InVault("a", "one")}, vault) as store:
        server.stored["a"] = {"one": "new"}
        for _ in range(100):
            store.hurry()
        await comes_true(lambda: store.get("x") == "new")
        store.hurry()
        await asyncio.sleep(LOOK * 5)
        assert len(server.reads) == 2


async def test_everything_that_cannot_be_had_is_told_by_name(tmp_path: Path, server: VaultServer) -> None:
    references = {"x": InFile(tmp_path / "x"), "y": InVault("a", "three"), "z": InVault("b", "f"), "w": Given("w")}
    vault = Vault(VaultAddress(server.url), lambda: Token("hvs.root-of-the-test"), ttl_seconds=60)
    store = SecretStore(references, vault)
    failures = await store.load()
    assert failures.keys() == {"x", "y", "z"}
    assert failures["y"].detail == "the vault's a has no field three"
    with pytest.raises(SecretUnavailable, match="no secret for x"):
        store.get("x")
    await store.stop()


async def test_a_reference_to_a_vault_that_is_not_configured_is_told(tmp_path: Path) -> None:
    failures = await SecretStore({"x": InVault("a", "b")}).load()
    assert "CODEAGENT_VAULT_ADDRESS is not set" in failures["x"].detail
