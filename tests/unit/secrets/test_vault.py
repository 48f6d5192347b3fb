"""Reading from a vault over its real protocol, faults included."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from codeagent.secrets.references import SecretUnavailable
from codeagent.secrets.vault import TRIES, AppRole, Credential, Token, Vault, VaultAddress, parse_approle
from tests.servers.vault import Fault, VaultServer

TOKEN = Token("hvs.root-of-the-test")
PATH = "codeagent/database"


@pytest.fixture
def server() -> Iterator[VaultServer]:
    with VaultServer(stored={PATH: {"password": "of-the-vault", "port": 5432}}) as running:
        yield running


@asynccontextmanager
async def reading(
    server: VaultServer, credential: Credential = TOKEN, ttl_seconds: float = 60.0, **address: Any
) -> AsyncIterator[Vault]:
    vault = Vault(
        VaultAddress(server.url, **{"timeout_seconds": 2.0, **address}), lambda: credential, ttl_seconds=ttl_seconds
    )
    try:
        yield vault
    finally:
        await vault.close()


async def test_the_text_fields_of_a_secret_are_read_and_kept_for_a_while(server: VaultServer) -> None:
    async with reading(server) as vault:
        assert await vault.read(PATH) == {"password": "of-the-vault"}
        server.stored[PATH] = {"password": "newer"}
        assert await vault.read(PATH) == {"password": "of-the-vault"}
        assert await vault.read(PATH, fresh=True) == {"password": "newer"}
        assert server.reads == [PATH, PATH]


async def test_what_was_kept_has_its_time(server: VaultServer) -> None:
    async with reading(server, ttl_seconds=0.0) as vault:
        await vault.read(PATH)
        await vault.read(PATH)
    assert server.reads == [PATH, PATH]


async def test_a_namespace_is_named(server: VaultServer) -> None:
    server.namespace = "team-a"
    async with reading(server, namespace="team-a") as vault:
        assert await vault.read(PATH) == {"password": "of-the-vault"}
    async with reading(server) as vault:
        with pytest.raises(SecretUnavailable, match="no such secret"):
            await vault.read(PATH)


async def test_an_approle_logs_in_once_and_again_when_its_token_has_ended(server: VaultServer) -> None:
    async with reading(server, AppRole("role-1", "secret-1")) as vault:
        await vault.read(PATH)
        await vault.read(PATH, fresh=True)
        assert server.logins == 1
        server.forget_logins()
        assert await vault.read(PATH, fresh=True) == {"password": "of-the-vault"}
        assert server.logins == 2


async def test_a_login_is_renewed_before_it_ends(server: VaultServer) -> None:
    server.lease_seconds = 1
    async with reading(server, AppRole("role-1", "secret-1")) as vault:
        await vault.read(PATH)
        vault._login.renew_at = time.monotonic() - 0.001  # type: ignore[union-attr]  # two thirds of the lease are over
        await vault.read(PATH, fresh=True)
        assert server.logins == 2
        assert 0 < vault._login.renew_at - time.monotonic() < 0.7  # type: ignore[union-attr]


@pytest.mark.parametrize("credential", [Token("hvs.of-another"), AppRole("role-1", "wrong")])
async def test_a_credential_that_is_not_accepted_is_told_as_such(server: VaultServer, credential: Credential) -> None:
    async with reading(server, credential) as vault:
        with pytest.raises(SecretUnavailable, match=r"refuses our credential|does not accept our AppRole"):
            await vault.read(PATH)


async def test_what_is_missing_or_deleted_is_told_as_such(server: VaultServer) -> None:
    server.stored["deleted"] = None
    async with reading(server) as vault:
        for path in ("nowhere", "deleted"):
            with pytest.raises(SecretUnavailable, match="no such secret"):
                await vault.read(path)


@pytest.mark.parametrize("fault", [503, 429, 500, 472, "cut"])
async def test_what_passes_is_tried_again(server: VaultServer, fault: Fault) -> None:
    server.faults = [fault] * (TRIES - 1)
    async with reading(server) as vault:
        assert await vault.read(PATH) == {"password": "of-the-vault"}
    assert len(server.reads) == TRIES


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (503, "does not answer .HTTP 503."),
        ("hang", "does not answer"),
        ("drip", "does not answer .TimeoutError."),
        ("cut", "does not answer"),
        ("html", "not JSON"),
        ("flood", "too large"),
        ("redirect", "answers HTTP 307"),
        (418, "answers HTTP 418"),
    ],
)
async def test_what_does_not_pass_ends_in_time_and_tells_nothing(
    server: VaultServer, fault: Fault, reason: str
) -> None:
    server.faults = [fault] * TRIES
    started = time.monotonic()
    async with reading(server, timeout_seconds=0.2) as vault:
        with pytest.raises(SecretUnavailable, match=reason) as refused:
            await vault.read(PATH)
    assert time.monotonic() - started < 10
    assert TOKEN.value not in refused.value.detail


async def test_a_vault_that_is_away_is_told_as_such(server: VaultServer) -> None:
    address = VaultAddress("http://127.0.0.1:1", timeout_seconds=1.0)
    vault = Vault(address, lambda: TOKEN, ttl_seconds=1.0)
    with pytest.raises(SecretUnavailable, match=r"does not answer \(ConnectError\)"):
        await vault.read(PATH)
    await vault.close()


def test_an_approle_is_read_from_json_and_a_bad_one_is_not_quoted() -> None:
    assert parse_approle('{"role_id": "r", "secret_id": "s"}') == AppRole("r", "s")
    for text in ("{", "[]", '{"role_id": "hidden"}', "null"):
        with pytest.raises(ValueError, match="role_id and secret_id") as refused:
            parse_approle(text)
        assert "hidden" not in str(refused.value)
