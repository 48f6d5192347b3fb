"""Looks at the whole configuration of a process before anything starts: settings, secrets, files, and the rules of
its environment."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from codeagent.broker.topics import PROVIDER_WORKER, load_topics
from codeagent.cli.kafka import kafka_problems
from codeagent.cli.secrets import files_of, provider_references, references, store_of, variable_of
from codeagent.encryption import SecretBox, parse_keys
from codeagent.flags.file_provider import load_flags
from codeagent.providers.registry import ProviderRegistry, ProviderSettings
from codeagent.secrets.references import InVault, Reference, SecretUnavailable, read_here
from codeagent.secrets.store import SecretStore
from codeagent.settings import ApiKeyEntry, Misconfigured, Problem, Settings, inspect_settings
from codeagent.settings.about import variable
from codeagent.settings.http import LEAST_PEPPER
from codeagent.settings.policy import Facts, judge
from codeagent.settings.variables import deprecations
from codeagent.telemetry.logs import get_logger
from codeagent.transparency.keys import parse_log_keys

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Configuration:
    """`problems` keep a process from starting, `warnings` do not. Of `settings`, those in `problems` are stand-ins."""

    settings: Settings
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]

    def usable(self) -> Settings:
        """Raises `Misconfigured` with everything that is wrong."""
        if self.problems:
            raise Misconfigured(self.problems)
        return self.settings


def tell(warnings: Sequence[Problem]) -> None:
    """Puts warnings into the log."""
    for warning in warnings:
        log.warning("config.warning", variable=warning.variable, risk=warning.risk, detail=str(warning))


async def examine(role: str | None = None, **given: Any) -> Configuration:
    """The configuration of a role, as `serve` would use it; of all roles where none is named."""
    settings, problems = inspect_settings(**given)
    examiner = _Examiner(role, settings)
    try:
        unavailable = await examiner.store.load()
    finally:
        await examiner.store.stop()
    return examiner.judged(problems, unavailable)


def examine_here(settings: Settings) -> Configuration:
    """The same for all roles of a machine, without asking a vault: its secrets are looked at by whoever needs them."""
    examiner = _Examiner(None, settings, with_vault=False)
    return examiner.judged([], examiner.store.load_here())


class _Examiner:
    def __init__(self, role: str | None, settings: Settings, *, with_vault: bool = True) -> None:
        self._role = role
        self._settings = settings
        self._known, self._problems = references(settings)
        self._providers: list[ProviderSettings] = self._file("providers_file", lambda _: self._checked_providers(), [])
        if role in {None, PROVIDER_WORKER}:
            self._known |= provider_references(settings, self._providers)
        held = self._known if with_vault else _without_vault(self._known)
        self.store: SecretStore = store_of(settings, held) if with_vault else SecretStore(held)

    def judged(self, problems: list[Problem], unavailable: Mapping[str, SecretUnavailable]) -> Configuration:
        settings = self._settings
        api_keys = self._file("api_keys_file", _api_keys, []) if self._role in {None, "edge"} else []
        self._file("flags_file", load_flags, {})
        self._file("topics_dir", load_topics, [])
        unreadable = [
            Problem(variable_of(name), f"cannot be read: {error.detail}") for name, error in unavailable.items()
        ]
        secrets = self._secrets()
        facts = Facts(settings, self._role, secrets, api_keys, self._providers, tuple(self._readable()))
        verdict = judge(facts)
        found = [*problems, *self._problems, *unreadable, *_malformed(secrets), *kafka_problems(settings)]
        # What is wrong as it is need not be judged as well.
        named = {problem.variable for problem in found}
        found += [problem for problem in verdict.refused if problem.variable not in named]
        return Configuration(settings, tuple(found), (*deprecations(os.environ), *verdict.warned, *verdict.accepted))

    def _file(self, name: str, load: Callable[[Path], Any], otherwise: Any) -> Any:
        """What a file of the settings holds; a file that cannot be used is noted."""
        path: Path | None = getattr(self._settings, name)
        if path is None:
            return otherwise
        try:
            return load(path)
        except OSError as error:
            self._problems.append(Problem(variable(name), f"names {path}, which cannot be read ({error.strerror})"))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "it"
            self._problems.append(Problem(variable(name), f"names {path}, which is wrong: {place}: {first['msg']}"))
        except ValueError as error:
            self._problems.append(Problem(variable(name), f"names {path}, which is wrong: {error}"))
        return otherwise

    def _checked_providers(self) -> list[ProviderSettings]:
        providers = self._settings.providers()
        ProviderRegistry(providers)
        provider_references(self._settings, providers)
        return providers

    def _secrets(self) -> dict[str, str]:
        found = self.store.values()
        token = self._known.get("vault_token")
        if token is not None and not isinstance(token, InVault):
            try:
                found["vault_token"] = read_here(token)
            except SecretUnavailable as error:
                self._problems.append(Problem(variable("vault_token"), f"cannot be read: {error.detail}"))
        return found

    def _readable(self) -> Iterator[tuple[str, Path]]:
        """Files with secrets that other accounts may read."""
        files = files_of(self._known)
        if self._role in {None, "edge"} and self._settings.api_keys_file is not None:
            files.append((variable("api_keys_file"), self._settings.api_keys_file))
        if self._settings.kafka_certificate_key_file is not None:
            files.append((variable("kafka_certificate_key_file"), self._settings.kafka_certificate_key_file))
        if self._role in {None, PROVIDER_WORKER}:
            held = [item.api_key_file for item in self._providers if item.api_key_file is not None]
            files += [(variable("providers_file"), path) for path in held]
            tokens = [item.bearer_token_file for item in self._settings.mcp_servers]
            files += [(variable("mcp_servers"), path) for path in tokens if path is not None]
        for name, path in dict.fromkeys(files):
            try:
                if stat.S_IMODE(path.stat().st_mode) & stat.S_IRWXO:
                    yield name, path
            except OSError:
                continue  # told as what cannot be read


def _without_vault(known: Mapping[str, Reference]) -> dict[str, Reference]:
    return {name: where for name, where in known.items() if not isinstance(where, InVault)}


def _api_keys(path: Path) -> list[ApiKeyEntry]:
    return TypeAdapter(list[ApiKeyEntry]).validate_json(path.read_bytes())


def _malformed(secrets: Mapping[str, str]) -> Iterator[Problem]:
    """Secrets that could be read, and cannot be used."""
    url = secrets.get("database_url")
    if url and not url.startswith(("postgresql://", "postgres://")):
        yield Problem(variable("database_url"), "is no address of a PostgreSQL database", "it begins postgresql://")
    if any(len(pepper) < LEAST_PEPPER for pepper in secrets.get("api_key_pepper", "").split(",") if pepper):
        yield Problem(variable("api_key_pepper"), f"has a pepper of less than {LEAST_PEPPER} characters")
    if text := secrets.get("kek"):
        try:
            SecretBox(parse_keys(text.splitlines()))
        except ValueError as error:
            yield Problem(variable("kek"), f"is wrong: {error}", "run `codeagent kek new`")
    if text := secrets.get("audit_signing_key"):
        try:
            parse_log_keys(text.splitlines())
        except ValueError as error:
            yield Problem(variable("audit_signing_key"), f"is wrong: {error}", "run `codeagent audit key`")
