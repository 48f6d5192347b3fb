"""Where the secrets of a process are, from its settings, and the store that holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote, urlsplit

from pydantic import SecretStr, TypeAdapter

from codeagent.broker.topics import PROVIDER_WORKER
from codeagent.providers.keys import KeySource
from codeagent.providers.registry import ProviderSettings
from codeagent.secrets.references import (
    Given,
    InFile,
    InVault,
    Reference,
    SecretUnavailable,
    parse_reference,
    read_here,
)
from codeagent.secrets.store import SecretStore
from codeagent.secrets.vault import Credential, Token, Vault, VaultAddress, parse_approle
from codeagent.settings import Misconfigured, Problem, Settings
from codeagent.settings.about import variable
from codeagent.settings.variables import is_secret

SECRETS = tuple(name for name, field in Settings.model_fields.items() if is_secret(field))
_OF_THE_VAULT = ("vault_token", "vault_approle")
"""Not in the store, since they are read whenever the vault is asked."""
PROVIDER = "provider."
"""Begins the names of providers' keys."""


def secret_text(settings: Settings, name: str) -> str:
    """A secret setting as it was given: itself, or the reference to it; empty without one."""
    value: SecretStr | None = getattr(settings, name)
    return value.get_secret_value() if value is not None else ""


def references(settings: Settings) -> tuple[dict[str, Reference], list[Problem]]:
    """Where each secret setting's value is, and those that cannot be understood."""
    found: dict[str, Reference] = {}
    problems: list[Problem] = []
    for name in SECRETS:
        if not (text := secret_text(settings, name)):
            continue
        try:
            found[name] = parse_reference(text)
        except ValueError as error:
            problems.append(Problem(variable(name), f"is wrong: {error}"))
    for name in _OF_THE_VAULT:
        if isinstance(found.get(name), InVault):
            problems.append(Problem(variable(name), "cannot be in the vault that it opens"))
            del found[name]
    return found, problems


def provider_references(settings: Settings, providers: list[ProviderSettings]) -> dict[str, Reference]:
    """Where the keys are that the providers' file gives or refers to. Raises `ValueError`."""
    found: dict[str, Reference] = {}
    for provider in providers:
        if provider.api_key is None or settings.providers_file is None:
            continue
        where = parse_reference(provider.api_key.get_secret_value())
        if isinstance(where, Given):
            # Not the text of now: the file may get another key.
            where = InFile(settings.providers_file, partial(_inline_key, provider.name))
        found[f"{PROVIDER}{provider.name}"] = where
    return found


def _inline_key(name: str, text: str) -> str:
    providers = TypeAdapter(list[ProviderSettings]).validate_json(text)
    keys = [item.api_key.get_secret_value() for item in providers if item.name == name and item.api_key is not None]
    if not keys:
        raise ValueError("the provider has no key any more")
    return keys[0]


def vault_of(settings: Settings, known: Mapping[str, Reference]) -> Vault | None:
    """The vault that the settings name."""
    if settings.vault_address is None:
        return None
    address = VaultAddress(
        settings.vault_address,
        settings.vault_mount,
        settings.vault_namespace,
        settings.vault_certificates,
        settings.vault_timeout_seconds,
    )
    return Vault(address, partial(_credential, known), ttl_seconds=settings.vault_ttl_seconds)


def _credential(known: Mapping[str, Reference]) -> Credential:
    for name in _OF_THE_VAULT:
        where = known.get(name)
        if where is None or isinstance(where, InVault):
            continue
        text = read_here(where)
        try:
            return Token(text) if name == "vault_token" else parse_approle(text)
        except ValueError as error:
            raise SecretUnavailable(f"{variable(name)}: {error}") from None
    raise SecretUnavailable(f"neither {variable('vault_token')} nor {variable('vault_approle')} is set")


def store_of(settings: Settings, known: Mapping[str, Reference]) -> SecretStore:
    """The store of these secrets, with nothing in it yet. Needs a running event loop where there is a vault."""
    held = {name: where for name, where in known.items() if name not in _OF_THE_VAULT}
    return SecretStore(held, vault_of(settings, known))


async def open_secrets(role: str, settings: Settings, only: Sequence[str] = SECRETS) -> SecretStore:
    """The secrets that a role needs, read, or `only` some. Raises `Misconfigured`, naming all that cannot be had."""
    known, problems = references(settings)
    known = {name: where for name, where in known.items() if name in {*only, *_OF_THE_VAULT}}
    if role == PROVIDER_WORKER:
        known |= provider_references(settings, settings.providers())
    store = store_of(settings, known)
    failures = await store.load()
    problems += [Problem(variable_of(name), f"cannot be read: {error.detail}") for name, error in failures.items()]
    if problems:
        await store.stop()
        raise Misconfigured(problems)
    return store


def resolved(settings: Settings, store: SecretStore) -> Settings:
    """The settings with their secrets in place of references, as they are at the start."""
    held = {name: SecretStr(text) for name, text in store.values().items() if name in SECRETS}
    return settings.model_copy(update=held)


async def with_secrets(settings: Settings, *names: str) -> Settings:
    """The settings with some secrets in place of references, for a command that needs no others. Raises
    `Misconfigured`."""
    store = await open_secrets("", settings, names)
    await store.stop()
    return resolved(settings, store)


def variable_of(name: str) -> str:
    """The variable behind a name in the store."""
    return variable("providers_file" if name.startswith(PROVIDER) else name)


def portable_secrets(settings: Settings) -> dict[str, str]:
    """The secret settings for a file of our own: references, and the database's address. A secret that was given
    itself is not written down: whoever reads the file has it from where this process had it."""
    texts = {name: secret_text(settings, name) for name in SECRETS}
    return {name: text for name, text in texts.items() if name == "database_url" or _refers(text)}


def _refers(text: str) -> bool:
    return not isinstance(parse_reference(text), Given)


async def database_url(settings: Settings) -> str:
    """The database's address with its password, for a command that needs it once. Raises `Misconfigured`."""
    store = await open_secrets("", settings)
    try:
        return database_address(store)
    finally:
        await store.stop()


def database_address(store: SecretStore) -> str:
    """The database's address of the moment, with the password that goes before the one in it."""
    url = store.get("database_url")
    if "database_password" not in store:
        return url
    parts = urlsplit(url)
    account, _, hosts = parts.netloc.rpartition("@")
    user = account.partition(":")[0]
    return parts._replace(netloc=f"{user}:{quote(store.get('database_password'), safe='')}@{hosts}").geturl()


def provider_keys(store: SecretStore) -> dict[str, KeySource]:
    """By provider, what gives its key of the moment."""
    names = [name for name in store.values() if name.startswith(PROVIDER)]
    return {name.removeprefix(PROVIDER): partial(store.get, name) for name in names}


def files_of(known: Mapping[str, Reference]) -> list[tuple[str, Path]]:
    """The files that hold secrets, with the variable that leads to each."""
    return [(variable_of(name), where.path) for name, where in known.items() if isinstance(where, InFile)]
