"""Settings come from the environment, whole or not at all: what is wrong is named, and a misspelt name is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from codeagent.settings import NOT_SETTINGS, Environment, Misconfigured, Settings, read_settings
from codeagent.settings.about import variable
from codeagent.settings.profiles import PROFILES
from codeagent.settings.variables import RENAMED, deprecations, file_variable, is_secret, wrong_variables

ROOT = Path(__file__).resolve().parents[3]
NEEDED = {
    "CODEAGENT_DATABASE_URL": "postgresql://u:secret@127.0.0.1:1/d",
    "CODEAGENT_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment with what is needed, and with nothing else of ours."""
    for name in [name for name in os.environ if name.startswith("CODEAGENT_")]:
        monkeypatch.delenv(name)
    for name, value in NEEDED.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def unknown_variables(environment: dict[str, str]) -> list[str]:
    return [str(problem) for problem in wrong_variables(Settings.model_fields, environment)]


def test_what_is_not_set_has_its_default(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CODEAGENT_MAX_ATTEMPTS", "7")
    environment.setenv("CODEAGENT_LEASE_SECONDS", "")
    settings = read_settings()
    assert (settings.max_attempts, settings.lease_seconds) == (7, 30.0)
    assert settings.database_url.get_secret_value() == NEEDED["CODEAGENT_DATABASE_URL"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CODEAGENT_DATABSE_URL", "CODEAGENT_DATABASE_URL"),
        ("CODEAGENT_DURABLE_ACEPT", "CODEAGENT_DURABLE_ACCEPT"),
        ("codeagent_lease_second", "CODEAGENT_LEASE_SECONDS"),
        ("CODEAGENT_HTPP_PORT", "CODEAGENT_HTTP_PORT"),
    ],
)
def test_a_misspelt_variable_is_named_with_the_one_it_is_closest_to(name: str, meant: str) -> None:
    assert unknown_variables({name: "1"}) == [f"{name} is not a setting, did you mean {meant}?"]


def test_a_variable_that_resembles_nothing_is_refused_as_well() -> None:
    assert unknown_variables({"CODEAGENT_ZQX": ""}) == ["CODEAGENT_ZQX is not a setting, remove it"]


def test_everything_that_is_wrong_is_told_at_once_and_no_value_with_it(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CODEAGENT_HTTP_PROT", "8080")
    environment.setenv("CODEAGENT_LEASE_SECONDS", "-77")
    environment.setenv("CODEAGENT_LOG_LEVEL", "loud")
    with pytest.raises(Misconfigured) as caught:
        read_settings()
    said = caught.value.detail
    assert "CODEAGENT_HTTP_PROT is not a setting, did you mean CODEAGENT_HTTP_PORT?" in said
    assert "CODEAGENT_LEASE_SECONDS is wrong: " in said
    assert "it takes number from 1 to 600" in said
    assert "CODEAGENT_LOG_LEVEL is wrong: " in said
    assert not any(value in said for value in ("secret", "-77", "loud"))


def test_mcp_servers_are_a_json_list_of_names_with_addresses_that_are_encrypted(
    environment: pytest.MonkeyPatch,
) -> None:
    assert read_settings().mcp_servers == ()
    docs = {"name": "docs", "url": "https://mcp.example.com/mcp", "read_only": ["search"]}
    environment.setenv("CODEAGENT_MCP_SERVERS", json.dumps([docs]))
    [server] = read_settings().mcp_servers
    assert (server.url, server.read_only, server.private) == (docs["url"], ("search",), False)
    inside = {**docs, "url": "http://docs.internal/mcp"}
    environment.setenv("CODEAGENT_MCP_SERVERS", json.dumps([{**inside, "private": True}]))
    assert read_settings().mcp_servers[0].private
    bad = ([docs, docs], [inside], [{**docs, "url": "https://user:secret@x/"}], [{**docs, "name": "a__b"}])
    for servers in bad:
        environment.setenv("CODEAGENT_MCP_SERVERS", json.dumps(servers))
        with pytest.raises(Misconfigured, match="CODEAGENT_MCP_SERVERS") as refused:
            read_settings()
        assert "secret" not in refused.value.detail


def test_trusted_hosts_are_a_json_list_and_nobody_is_trusted_without_it(environment: pytest.MonkeyPatch) -> None:
    assert read_settings().trusted_git_hosts == ()
    environment.setenv("CODEAGENT_TRUSTED_GIT_HOSTS", '[{"host": "git.internal", "certificates": "/ca.pem"}]')
    [trusted] = read_settings().trusted_git_hosts
    assert (trusted.host, trusted.port, trusted.certificates) == ("git.internal", 443, Path("/ca.pem"))


@pytest.mark.parametrize("name", ["egress_hosts", "sandbox_registries"])
def test_hosts_that_commands_may_reach_are_a_json_list_and_none_without_it(
    environment: pytest.MonkeyPatch, name: str
) -> None:
    assert getattr(read_settings(), name) == ()
    listed = '["PyPI.org", "*.pythonhosted.org", "registry.internal:8443"]'
    environment.setenv(f"CODEAGENT_{name.upper()}", listed)
    found = getattr(read_settings(), name)
    assert found == ("pypi.org:443", "*.pythonhosted.org:443", "registry.internal:8443")


@pytest.mark.parametrize("name", ["CODEAGENT_EGRESS_HOSTS", "CODEAGENT_SANDBOX_REGISTRIES"])
@pytest.mark.parametrize("value", ["pypi.org", '["https://pypi.org"]', '["10.0.0.1"]', '["*"]', '["localhost"]'])
def test_what_no_command_can_be_let_reach_is_refused_at_start(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(name, value)
    with pytest.raises(Misconfigured, match=name):
        read_settings()


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("git.internal", "CODEAGENT_TRUSTED_GIT_HOSTS is wrong: it should be JSON"),
        ('[{"host": "git.internal", "prot": 1}]', "CODEAGENT_TRUSTED_GIT_HOSTS.0.prot is wrong: extra inputs"),
        ('[{"host": "https://git.internal"}]', "CODEAGENT_TRUSTED_GIT_HOSTS.0.host is wrong: "),
        ('[{"host": "git.internal", "port": 0}]', "CODEAGENT_TRUSTED_GIT_HOSTS.0.port is wrong: "),
    ],
)
def test_what_is_no_list_of_hosts_is_refused(environment: pytest.MonkeyPatch, value: str, complaint: str) -> None:
    environment.setenv("CODEAGENT_TRUSTED_GIT_HOSTS", value)
    with pytest.raises(Misconfigured) as caught:
        read_settings()
    assert complaint in caught.value.detail


def test_peppers_are_told_apart_and_none_may_be_short(environment: pytest.MonkeyPatch) -> None:
    assert read_settings().api_key_peppers() == []
    new, old = "n" * 32, "o" * 40
    environment.setenv("CODEAGENT_API_KEY_PEPPER", f"{new},{old}")
    assert read_settings().api_key_peppers() == [new.encode(), old.encode()]
    environment.setenv("CODEAGENT_API_KEY_PEPPER", f"{new},short")
    with pytest.raises(ValueError, match="32 characters") as refused:
        read_settings().api_key_peppers()
    assert "short" not in str(refused.value)


def test_variables_that_others_read_are_left_to_them() -> None:
    others = {
        "CODEAGENT_URL": "u",
        "CODEAGENT_API_KEY": "k",
        "CODEAGENT_TEST_SEED": "7",
        "PATH": "/bin",
        "CODEAGENTS": "",
    }
    assert unknown_variables(others) == []


def test_what_kubernetes_says_about_services_is_no_misspelt_setting() -> None:
    links = {
        "CODEAGENT_EDGE_SERVICE_HOST": "10.0.0.7",
        "CODEAGENT_EDGE_SERVICE_PORT": "8080",
        "CODEAGENT_EDGE_SERVICE_PORT_HTTP": "8080",
        "CODEAGENT_EDGE_PORT": "tcp://10.0.0.7:8080",
        "CODEAGENT_EDGE_PORT_8080_TCP": "tcp://10.0.0.7:8080",
        "CODEAGENT_EDGE_PORT_8080_TCP_ADDR": "10.0.0.7",
    }
    assert unknown_variables(links) == []
    assert unknown_variables({"CODEAGENT_EDGE_PORT": "8080"}) != []


def test_a_file_of_a_secret_is_a_reference_and_nothing_is_read_yet(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("CODEAGENT_DATABASE_URL")
    environment.setenv("CODEAGENT_DATABASE_URL_FILE", "/run/secrets/url")
    assert read_settings().database_url.get_secret_value() == "file:/run/secrets/url"


def test_a_secret_and_its_file_contradict_each_other(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CODEAGENT_DATABASE_URL_FILE", "/run/secrets/url")
    with pytest.raises(Misconfigured, match="CODEAGENT_DATABASE_URL is set, and so is CODEAGENT_DATABASE_URL_FILE"):
        read_settings()


def test_a_former_name_still_works_and_is_told(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CODEAGENT_MINIMUM_LEVEL", "3")
    assert read_settings().sandbox_minimum_level == 3
    [told] = deprecations(os.environ)
    assert str(told) == ("CODEAGENT_MINIMUM_LEVEL is a deprecated name, call it CODEAGENT_SANDBOX_MINIMUM_LEVEL")
    environment.setenv("CODEAGENT_SANDBOX_MINIMUM_LEVEL", "2")
    with pytest.raises(Misconfigured, match="is the former name of CODEAGENT_SANDBOX_MINIMUM_LEVEL, and both are set"):
        read_settings()


@pytest.mark.parametrize("named", [Environment.STAGING, Environment.PRODUCTION])
def test_how_well_commands_are_isolated_has_to_be_said_where_it_matters(
    environment: pytest.MonkeyPatch, named: Environment
) -> None:
    assert read_settings().sandbox_minimum_level == 2
    environment.setenv("CODEAGENT_ENV", named)
    with pytest.raises(Misconfigured, match="CODEAGENT_SANDBOX_MINIMUM_LEVEL is not set"):
        read_settings()
    environment.setenv("CODEAGENT_SANDBOX_MINIMUM_LEVEL", "3")
    assert read_settings().sandbox_minimum_level == 3


@pytest.mark.parametrize("named", list(Environment))
def test_defaults_follow_the_environment_and_yield_to_what_is_set(
    environment: pytest.MonkeyPatch, named: Environment
) -> None:
    environment.setenv("CODEAGENT_ENV", named)
    environment.setenv("CODEAGENT_SANDBOX_MINIMUM_LEVEL", "2")
    settings = read_settings()
    assert {name: getattr(settings, name) for name in PROFILES[named]} == dict(PROFILES[named])
    environment.setenv("CODEAGENT_KAFKA_REPLICATION", "2")
    assert read_settings().kafka_replication == 2
    assert read_settings(kafka_replication=5).kafka_replication == 5


def test_secrets_are_shown_nowhere(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CODEAGENT_KEK", "k1:c2VjcmV0")
    settings = read_settings()
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert "c2VjcmV0" not in shown
    assert "u:secret@" not in shown


def test_the_list_of_other_variables_is_what_the_repository_reads() -> None:
    """Whatever name the code, the image or the compose file mentions is a setting or on the list, and the reverse."""
    places = [*(ROOT / "codeagent").rglob("*.py"), *(ROOT / "deploy").rglob("*"), ROOT / "docker-compose.yml"]
    sources = {path: path.read_text(errors="replace") for path in places if path.is_file()}
    settings = {variable(name) for name in (*Settings.model_fields, *RENAMED)}
    settings |= {file_variable(name) for name, field in Settings.model_fields.items() if is_secret(field)}
    no_variables = {"CODEAGENT_REPAIR", "CODEAGENT_COMMAND"}  # end of a here-document, a shell's own
    mentioned = {
        name
        for path, text in sources.items()
        for name in re.findall(r"\bCODEAGENT_[A-Z][A-Z_]*[A-Z]\b(?!_)", text)
        if path.name != "variables.py"
    }
    assert mentioned - settings - NOT_SETTINGS == {*no_variables, "CODEAGENT_X_FILE"}
    assert mentioned >= NOT_SETTINGS


@pytest.mark.parametrize(
    "command",
    [("serve", "relay"), ("db", "upgrade"), ("topics", "apply"), ("up",)],
    ids=" ".join,
)
def test_commands_refuse_a_misspelt_variable_before_they_do_anything(command: tuple[str, ...], tmp_path: Path) -> None:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("CODEAGENT_")}
    data_dir = tmp_path / "data"
    where = ("--data-dir", str(data_dir)) if command[0] != "serve" else ()
    done = subprocess.run(
        [sys.executable, "-m", "codeagent", *command, *where],
        env={**outside, **NEEDED, "CODEAGENT_DURABLE_ACEPT": "true"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "codeagent: the configuration is not usable: "
        "CODEAGENT_DURABLE_ACEPT is not a setting, did you mean CODEAGENT_DURABLE_ACCEPT?\n"
    )
    assert not data_dir.exists()


def test_production_refuses_to_start_and_says_everything_at_once(tmp_path: Path) -> None:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("CODEAGENT_")}
    insecure = {"CODEAGENT_ENV": "production", "CODEAGENT_LOG_LEVEL": "debug", "CODEAGENT_ALLOWED_ORIGINS": '["*"]'}
    done = subprocess.run(
        [sys.executable, "-m", "codeagent", "serve", "edge"],
        env={**outside, **NEEDED, **insecure},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("codeagent: the configuration is not usable: ")
    assert done.stderr.count("\n") == 1
    for told in (
        "CODEAGENT_LOG_LEVEL may",
        "CODEAGENT_ALLOWED_ORIGINS admits",
        "CODEAGENT_KEK is not",
        "has a password",
    ):
        assert told in done.stderr
    assert "u:secret@" not in done.stderr
