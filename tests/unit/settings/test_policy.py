"""What production refuses: a configuration that keeps every rule, and each rule broken once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from codeagent.encryption import new_key_line
from codeagent.providers.registry import ProviderSettings
from codeagent.settings import ApiKeyEntry, Environment, Problem, Risk, Settings
from codeagent.settings.hosts import hosts_of, is_local, password_of
from codeagent.settings.policy import RULES, Facts, judge
from codeagent.settings.weakness import weakness

STRONG = "f3a9c07b51de8462"
URL = f"postgresql://codeagent:{STRONG}@db.internal/codeagent?sslmode=verify-full"
ENTRY = ApiKeyEntry(
    key_id="key_ci",
    sha256="4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a",
    tenant_id="ten_a",
    principal_id="usr_a",
)
VENDOR = ProviderSettings(name="local", kind="openai", base_url="http://model.internal/v1", api_key=SecretStr(STRONG))


def configured(environment: Environment = Environment.PRODUCTION, **changed: Any) -> Settings:
    """Settings of a production that keeps every rule, whatever this machine's environment says."""
    values: dict[str, Any] = {
        "env": environment,
        "database_url": URL,
        "kafka_bootstrap_servers": "kafka:9092",
        "kafka_security_protocol": "SSL",
        "kek": "file:/run/secrets/kek",
        "audit_signing_key": "file:/run/secrets/audit-key",
        "subject_keys_dir": "/var/lib/codeagent/subject-keys",
        "api_key_pepper": "file:/run/secrets/pepper",
        "public_url": "https://codeagent.example.com",
        "allowed_origins": ["https://console.example.com"],
        "otlp_endpoint": "https://collector.internal/v1/traces",
        "vault_address": "https://vault.internal:8200",
        "sandbox_minimum_level": 2,
    }
    return Settings(**{**values, **changed})


SECRETS = {"database_url": URL, "kek": new_key_line("k1"), "provider.openai": STRONG, "vault_token": STRONG}
SOUND = Facts(configured(), None, SECRETS, [ENTRY])


def having(**settings: Any) -> Facts:
    return replace(SOUND, settings=configured(**settings))


def knowing(**secrets: str) -> Facts:
    return replace(SOUND, secrets={**SECRETS, **{name.replace("__", "."): text for name, text in secrets.items()}})


INSIDE = {"name": "docs", "url": "http://d/", "private": True}
BROKEN: list[tuple[str, Facts, str, str]] = [
    # rule, what breaks it, the variable that is named, a part of the reason
    ("weak_secret", knowing(kafka_password="changeme"), "KAFKA_PASSWORD", "is an example"),
    ("plaintext_broker", having(kafka_security_protocol="PLAINTEXT"), "KAFKA_SECURITY_PROTOCOL", "as plain text"),
    (
        "plaintext_broker",
        having(kafka_security_protocol="PLAINTEXT", kafka_bootstrap_servers="127.0.0.1:9092,[2001:db8::1]:9092"),
        "KAFKA_SECURITY_PROTOCOL",
        "as plain text",
    ),
    ("weak_secret", knowing(database_url=URL.replace(STRONG, "codeagent")), "DATABASE_URL", "is a default"),
    ("weak_secret", knowing(database_url=URL.replace(STRONG, "Tr0ub4dor")), "DATABASE_URL", "is shorter than 16"),
    ("weak_secret", knowing(database_password="replace_me_with_openssl"), "DATABASE_PASSWORD", "is an example"),
    ("weak_secret", knowing(kek="k1:" + "A" * 43 + "="), "KEK", "a key k1 that repeats itself"),
    ("weak_secret", knowing(vault_token="root"), "VAULT_TOKEN", "is a default"),
    (
        "weak_secret",
        knowing(provider__openai="your-api-key-goes-here"),
        "PROVIDERS_FILE",
        "of openai that is an example",
    ),
    (
        "example_api_key",
        replace(SOUND, api_keys=[ENTRY.model_copy(update={"key_id": "key_replace_me"})]),
        "API_KEYS_FILE",
        "entry of an example",
    ),
    (
        "example_api_key",
        replace(SOUND, api_keys=[ENTRY.model_copy(update={"sha256": "0" * 64})]),
        "API_KEYS_FILE",
        "invented digest",
    ),
    ("any_origin", having(allowed_origins=["*"]), "ALLOWED_ORIGINS", "every web page"),
    ("plaintext_origin", having(allowed_origins=["http://console.example.com"]), "ALLOWED_ORIGINS", "pose as"),
    ("weak_sandbox", having(sandbox_minimum_level=1), "SANDBOX_MINIMUM_LEVEL", "without limits"),
    ("debug_logs", having(log_level="debug"), "LOG_LEVEL", "secrets of libraries"),
    ("plaintext_public_url", having(public_url="http://codeagent.example.com"), "PUBLIC_URL", "travel readable"),
    ("plaintext_database", knowing(database_url=URL.partition("?")[0]), "DATABASE_URL", "over the network"),
    ("plaintext_traces", having(otlp_endpoint="http://collector:4318/v1/traces"), "OTLP_ENDPOINT", "plain text"),
    ("plaintext_vault", having(vault_address="http://vault:8200"), "VAULT_ADDRESS", "every secret"),
    ("plaintext_valkey", knowing(valkey_url=f"valkey://:{STRONG}@valkey:6379/0"), "VALKEY_URL", "sends a password"),
    (
        "plaintext_mcp",
        having(mcp_servers=[{**INSIDE, "tenants": ["ten_a"], "bearer_token_file": "/t"}]),
        "MCP_SERVERS",
        "the token of docs",
    ),
    ("shared_mcp", having(mcp_servers=[INSIDE]), "MCP_SERVERS", "every tenant use docs"),
    (
        "shared_mcp",
        having(mcp_servers=[{"name": "docs", "url": "https://d/", "bearer_token_file": "/t"}]),
        "MCP_SERVERS",
        "a token of yours",
    ),
    ("plaintext_provider", replace(SOUND, providers=[VENDOR]), "PROVIDERS_FILE", "the key of local"),
    ("weak_secret", knowing(api_key_pepper=f"{STRONG}{STRONG},changeme"), "API_KEY_PEPPER", "is an example"),
    ("missing_kek", having(kek=None), "KEK", "is not set"),
    ("missing_audit_key", having(audit_signing_key=None), "AUDIT_SIGNING_KEY", "would prove"),
    ("missing_subject_keys", having(subject_keys_dir=None), "SUBJECT_KEYS_URL", "would not be sealed"),
    ("missing_pepper", having(api_key_pepper=None), "API_KEY_PEPPER", "could make API keys"),
    ("webhooks_to_ourselves", having(webhook_loopback=True), "WEBHOOK_LOOPBACK", "on this machine"),
    ("open_monitor", having(monitor_host="0.0.0.0"), "MONITOR_HOST", "whole network"),
    ("open_monitor", having(monitor_host="::"), "MONITOR_HOST", "whole network"),
    (
        "readable_files",
        replace(SOUND, readable=[("CODEAGENT_API_KEYS_FILE", Path("/run/keys.json"))]),
        "API_KEYS_FILE",
        "every account",
    ),
]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CODEAGENT_ENV", raising=False)


def test_a_sound_configuration_breaks_no_rule() -> None:
    assert judge(SOUND) == judge(replace(SOUND, role="relay")) == judge(having(environment=Environment.STAGING))
    assert judge(SOUND).refused == ()


@pytest.mark.parametrize(("rule", "facts", "variable", "reason"), BROKEN, ids=[f"{b[0]}-{b[3][:20]}" for b in BROKEN])
def test_each_rule_is_broken_by_one_change_and_says_why(rule: str, facts: Facts, variable: str, reason: str) -> None:
    [refused] = judge(facts).refused
    assert (refused.risk, refused.variable) == (rule, f"CODEAGENT_{variable}")
    assert reason in refused.message
    assert refused.hint
    assert STRONG not in str(refused)


@pytest.mark.parametrize(("rule", "facts", "variable", "reason"), BROKEN, ids=[f"{b[0]}-{b[3][:20]}" for b in BROKEN])
def test_staging_warns_of_the_same_and_development_is_silent(
    rule: str, facts: Facts, variable: str, reason: str
) -> None:
    changed = facts.settings.model_copy(update={"env": Environment.STAGING})
    verdict = judge(replace(facts, settings=changed))
    assert (verdict.refused, [problem.risk for problem in verdict.warned]) == ((), [rule])
    assert judge(replace(facts, settings=changed.model_copy(update={"env": Environment.DEVELOPMENT}))).warned == ()


def test_every_rule_is_broken_above() -> None:
    assert {rule for rule, *_ in BROKEN} == {rule.name for rule in RULES}


def test_everything_is_told_at_once() -> None:
    facts = having(allowed_origins=["*"], log_level="debug", kek=None, public_url="http://x.example.com")
    assert {problem.risk for problem in judge(facts).refused} == {
        "any_origin",
        "debug_logs",
        "missing_kek",
        "plaintext_public_url",
    }


WAIVED = {Risk(rule.waiver): rule.name for rule in RULES if rule.waiver}


@pytest.mark.parametrize("risk", list(Risk))
def test_a_risk_may_be_accepted_with_a_reason_which_is_told(risk: Risk) -> None:
    facts = next(facts for rule, facts, *_ in BROKEN if rule == WAIVED[risk])
    waived = facts.settings.model_copy(update={"accepted_risks": {risk: "it stays inside of one rack"}})
    verdict = judge(replace(facts, settings=waived))
    assert verdict.refused == ()
    assert [problem.hint for problem in verdict.accepted] == ["accepted: it stays inside of one rack"]


def test_a_reason_is_needed_and_only_what_can_be_a_matter_of_taste_can_be_accepted() -> None:
    for risks in ({"open_monitor": "no"}, {"any_origin": "we know what we do"}, {"missing_kek": "who needs it"}):
        with pytest.raises(ValueError, match="accepted_risks"):
            configured(accepted_risks=risks)


def test_a_role_answers_for_what_it_uses() -> None:
    facts = having(kek=None, sandbox_minimum_level=1, allowed_origins=["*"], monitor_host="0.0.0.0")
    told = {role: {item.risk for item in judge(replace(facts, role=role)).refused} for role in ("edge", "agent-worker")}
    assert told == {"edge": {"missing_kek", "any_origin"}, "agent-worker": {"open_monitor"}}


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://codeagent:{STRONG}@127.0.0.1:5432/codeagent",
        f"postgresql://codeagent:{STRONG}@[::1]/codeagent",
        f"postgresql://codeagent:{STRONG}@/codeagent?host=/run/postgresql",
        "postgresql://codeagent@db.internal/codeagent",
        f"postgresql://codeagent:{STRONG}@db.internal/codeagent?sslmode=require",
    ],
)
def test_an_address_without_a_password_in_the_open_is_no_risk(url: str) -> None:
    assert judge(knowing(database_url=url)).refused == ()


def test_an_address_on_the_machine_itself_is_not_public() -> None:
    assert judge(having(public_url="http://127.0.0.1:8080", vault_address="http://[::1]:8200")).refused == ()


def test_a_durable_acceptance_that_is_off_is_allowed() -> None:
    assert judge(having(durable_accept=False)).refused == ()


def test_addresses_are_taken_apart() -> None:
    assert password_of("postgresql://u:p%40ss@h/d") == "p@ss"
    assert password_of("postgresql://h/d?password=x") == "x"
    assert hosts_of("postgresql://u:p@one:1,[fe80::2]:3/d?host=/run") == ["one", "fe80::2", "/run"]
    assert [is_local(host) for host in ("", "/run", "localhost", "127.0.0.9", "::1", "10.0.0.1", "db")] == [
        *[True] * 5,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("secret", "fault"),
    [
        ("Postgres123!", "is a default"),
        ("CHANGEME-please-now-42", "is an example"),
        ("abcabcabcabcabcabc", "repeats itself"),
        ("f3a9c07b51de846", "is shorter than 16 characters"),
        ("f3a9c07b51de8462", ""),
        ("correct horse battery staple", ""),
    ],
)
def test_what_is_guessed_in_an_afternoon_is_no_secret(secret: str, fault: str) -> None:
    assert weakness(secret) == fault


def test_problems_as_json_name_the_rule() -> None:
    assert Problem("CODEAGENT_X", "is wrong", "do so", "rule").as_json() == {
        "variable": "CODEAGENT_X",
        "message": "is wrong",
        "hint": "do so",
        "risk": "rule",
    }
