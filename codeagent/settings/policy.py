"""What production refuses and staging warns of: one rule each, and nothing here opens a file or a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from codeagent.encryption import parse_keys
from codeagent.providers.registry import ProviderSettings
from codeagent.settings.about import variable
from codeagent.settings.hosts import hosts_of, is_local, password_of
from codeagent.settings.http import ApiKeyEntry
from codeagent.settings.model import Settings
from codeagent.settings.problems import Problem
from codeagent.settings.profiles import Environment, Risk
from codeagent.settings.weakness import LEAST_DIFFERENT, weakness

EDGE, SANDBOX, RELAY = "edge", "sandbox-worker", "relay"
_WORKERS = frozenset({"agent-worker", "provider-worker", SANDBOX, RELAY})
_EVERYBODY = _WORKERS | {EDGE}
_ENCRYPTED = frozenset({"require", "verify-ca", "verify-full"})


@dataclass(frozen=True, slots=True)
class Facts:
    """A configuration as a process would use it. Without a `role` it is looked at for all of them.

    `secrets` are resolved, by the name of their setting (`provider.NAME` for a provider's key); `readable` are files
    with secrets that other accounts may read, with the variable that names them.
    """

    settings: Settings
    role: str | None = None
    secrets: Mapping[str, str] | None = None
    api_keys: Sequence[ApiKeyEntry] = ()
    providers: Sequence[ProviderSettings] = ()
    readable: Sequence[tuple[str, Path]] = ()

    def secret(self, name: str) -> str:
        return (self.secrets or {}).get(name, "")


@dataclass(frozen=True, slots=True)
class Rule:
    """`find` names the variables that break it. A rule with a `waiver` can be accepted as a risk, with a reason."""

    name: str
    find: Callable[[Facts], Iterable[Problem]]
    roles: frozenset[str] = _EVERYBODY
    waiver: Risk | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`refused` keeps the process from starting, `warned` is told, `accepted` was accepted by the operator."""

    refused: tuple[Problem, ...] = ()
    warned: tuple[Problem, ...] = ()
    accepted: tuple[Problem, ...] = ()


def judge(facts: Facts) -> Verdict:
    """Every rule that is broken, and what follows from it in this environment."""
    environment, waivers = facts.settings.env, facts.settings.accepted_risks
    if environment is Environment.DEVELOPMENT:
        return Verdict()
    open_findings: list[Problem] = []
    accepted: list[Problem] = []
    for rule in RULES:
        if facts.role is not None and facts.role not in rule.roles:
            continue
        found = [replace(problem, risk=rule.name) for problem in rule.find(facts)]
        reason = waivers.get(rule.waiver) if rule.waiver else None
        if reason is not None:
            accepted += [replace(problem, hint=f"accepted: {reason}") for problem in found]
        else:
            open_findings += [_with_way_out(problem, rule) for problem in found]
    if environment is Environment.STAGING:
        return Verdict(warned=tuple(open_findings), accepted=tuple(accepted))
    return Verdict(refused=tuple(open_findings), accepted=tuple(accepted))


def _with_way_out(problem: Problem, rule: Rule) -> Problem:
    if rule.waiver is None:
        return problem
    return replace(problem, hint=f"{problem.hint}, or accept {rule.waiver.value} in {variable('accepted_risks')}")


def _weak_secrets(facts: Facts) -> Iterator[Problem]:
    hint = "make one with `openssl rand -hex 24`"
    password = facts.secret("database_password") or password_of(facts.secret("database_url"))
    named = "database_password" if facts.secret("database_password") else "database_url"
    if password and (fault := weakness(password)):
        yield Problem(variable(named), f"has a password that {fault}", hint)
    if (shown := facts.secret("kafka_password")) and (fault := weakness(shown)):
        yield Problem(variable("kafka_password"), fault, hint)
    if (token := facts.secret("vault_token")) and (fault := weakness(token)):
        yield Problem(variable("vault_token"), fault, "take the one that the vault has issued")
    for pepper in filter(None, facts.secret("api_key_pepper").split(",")):
        if fault := weakness(pepper):
            yield Problem(variable("api_key_pepper"), fault, "make one with `openssl rand -hex 32`")
    for name, key in (facts.secrets or {}).items():
        if name.startswith("provider.") and (fault := weakness(key)):
            provider = name.removeprefix("provider.")
            yield Problem(variable("providers_file"), f"has a key of {provider} that {fault}", "take the vendor's")
    for name, sealing in _keks(facts).items():
        if len(set(sealing)) < LEAST_DIFFERENT:
            yield Problem(variable("kek"), f"has a key {name} that repeats itself", "run `codeagent kek new`")


def _keks(facts: Facts) -> Mapping[str, bytes]:
    try:
        return parse_keys(facts.secret("kek").splitlines())
    except ValueError:
        return {}  # told as such elsewhere


def _example_keys(facts: Facts) -> Iterator[Problem]:
    for entry in facts.api_keys:
        if any(weakness(text) == "is an example" for text in (entry.key_id, entry.tenant_id, entry.principal_id)):
            yield Problem(variable("api_keys_file"), f"has the entry of an example, {entry.key_id}", "take it out")
        elif weakness(entry.sha256):
            yield Problem(variable("api_keys_file"), f"has an invented digest, {entry.key_id}", "run `codeagent key`")


def _any_origin(facts: Facts) -> Iterator[Problem]:
    if "*" in facts.settings.allowed_origins:
        yield Problem(variable("allowed_origins"), "admits every web page there is", "name the origins")


def _plain_origin(facts: Facts) -> Iterator[Problem]:
    for origin in facts.settings.allowed_origins:
        if origin.startswith("http://"):
            yield Problem(variable("allowed_origins"), f"admits {origin}, which anybody can pose as", "use https")


def _weak_sandbox(facts: Facts) -> Iterator[Problem]:
    if facts.settings.sandbox_minimum_level < 2:
        yield Problem(
            variable("sandbox_minimum_level"),
            "lets commands run without limits of their group and without a user of their own",
            "set it to 2 or 3",
        )


def _debug_logs(facts: Facts) -> Iterator[Problem]:
    if facts.settings.log_level == "debug":
        yield Problem(variable("log_level"), "may put secrets of libraries into the log", "set it to info")


def _plain_public_url(facts: Facts) -> Iterator[Problem]:
    url = facts.settings.public_url or ""
    if url.startswith("http://") and not is_local(urlsplit(url).hostname or ""):
        yield Problem(variable("public_url"), "lets keys travel readable", "put TLS before the edge and use https")


def _plaintext_database(facts: Facts) -> Iterator[Problem]:
    url = facts.secret("database_url")
    has_password = bool(facts.secret("database_password") or password_of(url))
    mode = parse_qs(urlsplit(url).query).get("sslmode", ["prefer"])[-1]
    if has_password and mode not in _ENCRYPTED and not all(map(is_local, hosts_of(url))):
        yield Problem(
            variable("database_url"),
            "sends password and data over the network, and nothing says that they are encrypted",
            "add ?sslmode=verify-full",
        )


def _plaintext_broker(facts: Facts) -> Iterator[Problem]:
    hosts = [server.rpartition(":")[0].strip("[]") for server in facts.settings.kafka_bootstrap_servers.split(",")]
    if facts.settings.kafka_security_protocol == "PLAINTEXT" and not all(map(is_local, hosts)):
        yield Problem(
            variable("kafka_security_protocol"),
            "sends tasks and results over the network as plain text, to whoever answers there",
            "set it to SSL or SASL_SSL",
        )


def _plaintext(name: str, url: str | None, what: str) -> Iterator[Problem]:
    if url is not None and url.startswith("http://") and not is_local(urlsplit(url).hostname or ""):
        yield Problem(variable(name), f"sends {what} over the network as plain text", "use https")


def _plaintext_traces(facts: Facts) -> Iterator[Problem]:
    return _plaintext("otlp_endpoint", facts.settings.otlp_endpoint, "traces")


def _plaintext_vault(facts: Facts) -> Iterator[Problem]:
    return _plaintext("vault_address", facts.settings.vault_address, "every secret")


def _plaintext_valkey(facts: Facts) -> Iterator[Problem]:
    url = urlsplit(facts.secret("valkey_url"))
    if url.scheme in {"valkey", "redis"} and url.password and not is_local(url.hostname or ""):
        yield Problem(variable("valkey_url"), "sends a password over the network as plain text", "use valkeys://")


def _plaintext_provider(facts: Facts) -> Iterator[Problem]:
    for provider in facts.providers:
        if provider.api_key is not None or provider.api_key_file is not None:
            yield from _plaintext("providers_file", provider.base_url, f"the key of {provider.name}")


def _plaintext_mcp(facts: Facts) -> Iterator[Problem]:
    for server in facts.settings.mcp_servers:
        if server.bearer_token_file is not None:
            yield from _plaintext("mcp_servers", server.url, f"the token of {server.name}")


def _shared_mcp(facts: Facts) -> Iterator[Problem]:
    for server in facts.settings.mcp_servers:
        if server.tenants is None and (server.private or server.bearer_token_file is not None):
            yield Problem(
                variable("mcp_servers"),
                f"lets the agents of every tenant use {server.name}, which is private or opened by a token of yours",
                "name the tenants whose it is in its `tenants`",
            )


def _missing_pepper(facts: Facts) -> Iterator[Problem]:
    if not facts.settings.api_key_pepper:
        yield Problem(
            variable("api_key_pepper"),
            "is not set, so whoever can write rows of the database could make API keys",
            "make one with `openssl rand -hex 32`",
        )


def _missing_kek(facts: Facts) -> Iterator[Problem]:
    if not facts.settings.kek:
        yield Problem(
            variable("kek"),
            "is not set, so secrets, and the key that digests are made with, could not be sealed in the database",
            "run `codeagent kek new`",
        )


def _missing_audit_key(facts: Facts) -> Iterator[Problem]:
    if not facts.settings.audit_signing_key:
        yield Problem(
            variable("audit_signing_key"),
            "is not set, so nothing would prove that the event log was not changed",
            "run `codeagent audit key`",
        )


def _missing_subject_keys(facts: Facts) -> Iterator[Problem]:
    if not facts.settings.subject_keys_dir and not facts.settings.subject_keys_url:
        yield Problem(
            variable("subject_keys_url"),
            "is not set, so what belongs to persons would not be sealed, nor could it be erased from copies of the log",
            "give it a database of its own, or SUBJECT_KEYS_DIR on a single machine",
        )


def _webhooks_to_ourselves(facts: Facts) -> Iterator[Problem]:
    if facts.settings.webhook_loopback:
        yield Problem(
            variable("webhook_loopback"),
            "lets whoever may make webhooks reach what listens on this machine",
            "unset it",
        )


def _open_monitor(facts: Facts) -> Iterator[Problem]:
    if not is_local(facts.settings.monitor_host):
        yield Problem(variable("monitor_host"), "shows metrics to the whole network, without a key", "use 127.0.0.1")


def _readable_files(facts: Facts) -> Iterator[Problem]:
    for name, path in facts.readable:
        yield Problem(name, f"names {path}, which every account of the machine may read", f"chmod o-rwx {path}")


RULES: tuple[Rule, ...] = (
    Rule("weak_secret", _weak_secrets),
    Rule("example_api_key", _example_keys, frozenset({EDGE})),
    Rule("any_origin", _any_origin, frozenset({EDGE})),
    Rule("plaintext_origin", _plain_origin, frozenset({EDGE})),
    Rule("weak_sandbox", _weak_sandbox, frozenset({SANDBOX})),
    Rule("debug_logs", _debug_logs),
    Rule("plaintext_public_url", _plain_public_url, frozenset({EDGE})),
    Rule("plaintext_database", _plaintext_database, waiver=Risk.PLAINTEXT_DATABASE),
    Rule("plaintext_broker", _plaintext_broker, waiver=Risk.PLAINTEXT_BROKER),
    Rule("plaintext_traces", _plaintext_traces, waiver=Risk.PLAINTEXT_TRACES),
    Rule("plaintext_vault", _plaintext_vault),
    Rule("plaintext_valkey", _plaintext_valkey, frozenset({EDGE})),
    Rule("plaintext_provider", _plaintext_provider, frozenset({"provider-worker"}), Risk.PLAINTEXT_PROVIDER),
    Rule("plaintext_mcp", _plaintext_mcp, frozenset({"provider-worker"})),
    Rule("shared_mcp", _shared_mcp, frozenset({EDGE, "provider-worker"})),
    Rule("missing_kek", _missing_kek, frozenset({EDGE, RELAY})),
    Rule("missing_audit_key", _missing_audit_key, frozenset({RELAY})),
    Rule("missing_subject_keys", _missing_subject_keys),
    Rule("missing_pepper", _missing_pepper, frozenset({EDGE})),
    Rule("webhooks_to_ourselves", _webhooks_to_ourselves, frozenset({EDGE, RELAY})),
    Rule("open_monitor", _open_monitor, _WORKERS, Risk.OPEN_MONITOR),
    Rule("readable_files", _readable_files, waiver=Risk.READABLE_FILES),
)
