"""`codeagent config check`: what `serve` would say, without starting anything; and it shows no secret."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from codeagent.cli.main import app
from codeagent.encryption import new_key_line
from codeagent.settings.reference import markdown
from codeagent.transparency.notes import SigningKey
from tests.servers.vault import VaultServer

SECRET = "q7Zr2mW9pL4xT8vB"
LOG_KEY = SigningKey.new("log.example").secret()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A development that can be used, and nothing else of ours."""
    for name in [name for name in os.environ if name.startswith("CODEAGENT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CODEAGENT_DATABASE_URL", f"postgresql://codeagent:{SECRET}@127.0.0.1:1/d")
    monkeypatch.setenv("CODEAGENT_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("CODEAGENT_API_KEY_PEPPER", SECRET * 2)
    monkeypatch.setenv("CODEAGENT_AUDIT_SIGNING_KEY", LOG_KEY)
    monkeypatch.setenv("CODEAGENT_SUBJECT_KEYS_DIR", "/var/lib/codeagent/subject-keys")
    monkeypatch.setenv("CODEAGENT_SANDBOX_MINIMUM_LEVEL", "2")
    return monkeypatch


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["config", *arguments])
    assert SECRET not in result.output
    assert LOG_KEY not in result.output
    return result.exit_code, result.output


def report(*arguments: str) -> dict[str, Any]:
    status, output = run("check", "--json", *arguments)
    found: dict[str, Any] = json.loads(output)
    assert (status == 0) is found["usable"] is (found["problems"] == [])
    assert status in {0, 2}
    return found


def problems(*arguments: str) -> dict[str, str]:
    return {item["variable"]: item["message"] for item in report(*arguments)["problems"]}


def test_what_can_be_used_exits_0(environment: pytest.MonkeyPatch) -> None:
    assert run("check") == (0, "development: the configuration can be used\n")
    assert report("--role", "edge") == {
        "usable": True,
        "environment": "development",
        "role": "edge",
        "problems": [],
        "warnings": [],
    }


def test_everything_that_is_wrong_is_named_at_once_with_a_hint(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.delenv("CODEAGENT_SANDBOX_MINIMUM_LEVEL")  # it goes by its former name here
    (tmp_path / "providers.json").write_text(f'[{{"name": "x", "kind": "openai", "api_key": "{SECRET}", "no": 1}}]')
    (tmp_path / "flags.yaml").write_text("git_sorces: {value: false}")
    (tmp_path / "keys.json").write_text(f'[{{"key_id": "{SECRET}"}}]')
    for name, value in {
        "ENV": "production",
        "LEASE_SECONDS": "x",
        "HTPP_PORT": "1",
        "LOG_LEVEL": "debug",
        "DATABASE_PASSWORD": "vault:codeagent/database",
        "KEK": f"k1:{SECRET}",
        "AUDIT_SIGNING_KEY": f"PRIVATE+KEY+{SECRET}",
        "PROVIDERS_FILE": str(tmp_path / "providers.json"),
        "FLAGS_FILE": str(tmp_path / "flags.yaml"),
        "API_KEYS_FILE": str(tmp_path / "keys.json"),
        "TOPICS_DIR": str(tmp_path / "nowhere"),
        "MINIMUM_LEVEL": "1",
    }.items():
        environment.setenv(f"CODEAGENT_{name}", value)
    found = report()
    assert {
        item["variable"].removeprefix("CODEAGENT_"): item["message"].split(":")[0] for item in found["problems"]
    } == {
        "HTPP_PORT": "is not a setting",
        "LEASE_SECONDS": "is wrong",
        "DATABASE_PASSWORD": "is wrong",
        "KEK": "is wrong",
        "AUDIT_SIGNING_KEY": "is wrong",
        "PROVIDERS_FILE": f"names {tmp_path}/providers.json, which is wrong",
        "FLAGS_FILE": f"names {tmp_path}/flags.yaml, which is wrong",
        "API_KEYS_FILE": f"names {tmp_path}/keys.json, which is wrong",
        "TOPICS_DIR": f"names {tmp_path}/nowhere, which is wrong",
        "LOG_LEVEL": "may put secrets of libraries into the log",
        "SANDBOX_MINIMUM_LEVEL": "lets commands run without limits of their group and without a user of their own",
    }
    assert [item["variable"] for item in found["warnings"]] == ["CODEAGENT_MINIMUM_LEVEL"]
    status, text = run("check")
    assert status == 2
    assert text.endswith("production: 11 problems\n")


def test_a_role_is_not_held_to_what_it_does_not_use(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("CODEAGENT_API_KEYS_FILE", str(tmp_path / "missing"))
    assert problems("--role", "relay") == {}
    assert "cannot be read" in problems("--role", "edge")["CODEAGENT_API_KEYS_FILE"]
    assert run("check", "--role", "sidecar")[0] == 2


def test_secrets_are_looked_up_where_they_are(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{SECRET}\n")
    environment.setenv("CODEAGENT_DATABASE_PASSWORD_FILE", str(tmp_path / "password"))
    assert problems() == {}
    (tmp_path / "password").unlink()
    assert "No such file" in problems()["CODEAGENT_DATABASE_PASSWORD"]


def test_production_asks_who_may_read_the_files(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keks, keys = tmp_path / "kek", tmp_path / "keys.json"
    keks.write_text(new_key_line("k1"))
    keys.write_text("[]")
    environment.setenv("CODEAGENT_ENV", "production")
    environment.setenv("CODEAGENT_KEK_FILE", str(keks))
    environment.setenv("CODEAGENT_API_KEYS_FILE", str(keys))
    for path in (keks, keys):
        path.chmod(0o644)
    assert problems().keys() == {"CODEAGENT_KEK", "CODEAGENT_API_KEYS_FILE"}
    for path in (keks, keys):
        path.chmod(0o640)
    assert problems() == {}


def test_what_is_in_a_vault_is_read_and_judged(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CODEAGENT_ENV", "production")
    environment.setenv("CODEAGENT_KEK", "vault:codeagent/keys#kek")
    environment.setenv("CODEAGENT_DATABASE_PASSWORD", "vault:codeagent/database#password")
    environment.setenv("CODEAGENT_VAULT_TOKEN", "hvs.root-of-the-test")
    stored: dict[str, dict[str, object] | None] = {
        "codeagent/keys": {"kek": new_key_line("k1")},
        "codeagent/database": {"password": "changeme"},
    }
    with VaultServer(stored=stored) as vault:
        environment.setenv("CODEAGENT_VAULT_ADDRESS", vault.url)
        assert problems() == {"CODEAGENT_DATABASE_PASSWORD": "has a password that is an example"}
        stored["codeagent/database"] = {"password": SECRET}
        assert problems() == {}
        assert problems("--role", "edge") == {}
        del stored["codeagent/keys"]
        assert "no such secret" in problems()["CODEAGENT_KEK"]
    environment.delenv("CODEAGENT_VAULT_ADDRESS")
    assert "CODEAGENT_VAULT_ADDRESS is not set" in problems()["CODEAGENT_KEK"]


def test_a_pepper_that_is_too_short_is_refused_everywhere(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CODEAGENT_API_KEY_PEPPER", f"{SECRET * 2},{SECRET}")
    assert problems() == {"CODEAGENT_API_KEY_PEPPER": "has a pepper of less than 32 characters"}


def test_the_key_of_the_vault_is_not_in_the_vault(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CODEAGENT_VAULT_ADDRESS", "http://127.0.0.1:1")
    environment.setenv("CODEAGENT_VAULT_TOKEN", "vault:a#b")
    assert problems() == {"CODEAGENT_VAULT_TOKEN": "cannot be in the vault that it opens"}


def test_staging_warns_and_can_be_used(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CODEAGENT_ENV", "staging")
    found = report()
    assert found["usable"]
    assert {item["risk"] for item in found["warnings"]} == {"missing_kek"}


def test_the_reference_is_printed_as_it_is_committed(environment: pytest.MonkeyPatch) -> None:
    assert run("reference") == (0, markdown())


def test_a_database_that_cannot_be_asked_is_a_problem(environment: pytest.MonkeyPatch) -> None:
    assert problems("--database")["CODEAGENT_DATABASE_URL"].startswith("cannot be used: the database does not answer")
