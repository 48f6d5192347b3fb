"""What operators do from the terminal, on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from codeagent.cli.main import app
from codeagent.encryption import new_key_line
from codeagent.eventlog.database import Database, Row

EMAIL = "grace@example.org"
Codeagent = Callable[..., Result]


@pytest.fixture
def codeagent(newest_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Codeagent:
    monkeypatch.setenv("CODEAGENT_DATABASE_URL", newest_database_url)
    monkeypatch.setenv("CODEAGENT_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("CODEAGENT_KEK", new_key_line("k1"))

    def run(*arguments: str, typed: str = "") -> Result:
        return CliRunner().invoke(app, list(arguments), input=typed)

    return run


def rows(url: str, query: str) -> list[Row]:
    async def read() -> list[Row]:
        database = Database(url, connections=1)
        try:
            return list(await database.fetch(query))
        finally:
            await database.close()

    return asyncio.run(read())


def test_an_installation_is_bootstrapped_once_and_its_password_shown_once(
    codeagent: Codeagent, newest_database_url: str
) -> None:
    done = codeagent("admin", "bootstrap", "--email", EMAIL, "--name", "First", "--tenant-id", "ten_local")
    assert done.exit_code == 0, done.output
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert said["tenant"] == "ten_local"
    assert said["owner"].startswith("usr_")
    assert len(said["password"]) >= 20
    [row] = rows(newest_database_url, "SELECT temporary_until - changed_at AS given FROM passwords")
    assert row["given"].total_seconds() / 3600 == pytest.approx(72, abs=0.1)  # the row reads the clock twice
    again = codeagent("admin", "bootstrap", "--email", EMAIL)
    assert (again.exit_code, "There is a tenant already." in again.stderr) == (1, True)
    assert EMAIL not in "".join(str(dict(row)) for row in rows(newest_database_url, "SELECT * FROM events"))


def test_an_owner_may_bring_a_password_which_is_not_shown(codeagent: Codeagent, newest_database_url: str) -> None:
    weak = codeagent("admin", "bootstrap", "--email", EMAIL, "--password-stdin", typed="password1234\n")
    assert (weak.exit_code, "guessed first" in weak.stderr) == (2, True)
    done = codeagent("admin", "bootstrap", "--email", EMAIL, "--password-stdin", typed="cobol compiler no 1\n")
    assert done.exit_code == 0, done.output
    assert "password" not in done.stdout
    [row] = rows(newest_database_url, "SELECT temporary_until FROM passwords")
    assert row["temporary_until"] is None
    tenant = done.stdout.splitlines()[0].split()[1]
    assert codeagent("admin", "suspend", tenant).exit_code == 0
    assert codeagent("admin", "suspend", tenant).exit_code == 1
    assert codeagent("admin", "resume", tenant).exit_code == 0


def test_signing_keys_are_rotated_ahead_of_time_and_replaced_at_once(
    codeagent: Codeagent, newest_database_url: str
) -> None:
    for revoke, kept in ((False, 1), (False, 2), (True, 1)):
        done = codeagent("auth", "rotate-keys", *(["--revoke"] if revoke else []))
        assert done.exit_code == 0, done.output
        found = rows(newest_database_url, "SELECT active_from > now() AS ahead FROM signing_keys")
        assert [row["ahead"] for row in found] == [not revoke] * kept


def test_without_a_key_to_seal_with_nothing_is_made(codeagent: Codeagent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CODEAGENT_KEK")
    done = codeagent("admin", "bootstrap", "--email", EMAIL)
    assert (done.exit_code, "CODEAGENT_KEK is not set" in done.stderr) == (1, True)


def test_a_providers_key_is_typed_or_read_from_a_file_and_never_shown(
    codeagent: Codeagent, newest_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    providers, key = tmp_path / "providers.json", tmp_path / "key"
    providers.write_text('[{"name": "openai", "kind": "openai"}]')
    key.write_text("MARKED-filed\n")
    monkeypatch.setenv("CODEAGENT_PROVIDERS_FILE", str(providers))
    command = ("providers", "credentials")
    typed = codeagent(*command, "add", "openai", "--label", "typed", typed="MARKED-typed\n")
    filed = codeagent(*command, "add", "openai", "--label", "filed", "--file", str(key))
    assert (typed.exit_code, filed.exit_code) == (0, 0), f"{typed.output}{filed.output}"
    first, second = typed.stdout.strip(), filed.stdout.strip()
    revoked = codeagent(*command, "revoke", "openai", first)
    assert (revoked.exit_code, revoked.stdout) == (0, f"{first} is revoked\n")
    listed = codeagent(*command, "list", "openai")
    assert [line.split()[:2] for line in listed.stdout.splitlines()] == [[second, "active"], [first, "revoked"]]
    bad = codeagent(*command, "add", "openai", "--label", "bad", typed="MARKED two words\n")
    nobody = codeagent(*command, "add", "nobody", "--label", "x", typed="MARKED\n")
    unknown = codeagent(*command, "revoke", "openai", "cred_none")
    assert (bad.exit_code, nobody.exit_code, unknown.exit_code) == (2, 2, 1)
    assert "MARKED" not in "".join(each.output for each in (typed, filed, revoked, listed, bad, nobody, unknown))
    assert "MARKED" not in "".join(str(dict(row)) for row in rows(newest_database_url, "SELECT * FROM events"))
