"""What operators do with stored keys of model providers from the terminal, on the database itself."""

from __future__ import annotations

import sys
from pathlib import Path

from codeagent.cli.administer import box_of, opened
from codeagent.cli.operate import guarded, say
from codeagent.clock import new_uuid
from codeagent.errors import InvalidInput
from codeagent.eventlog.facts import Author
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.messages.ids import INSTALLATION, typed_id
from codeagent.provider_registry.credentials import PREFIX, Credential, CredentialOrder, Credentials
from codeagent.providers.keys import KeyUnusable, read_key
from codeagent.providers.registry import BUILTIN

MOST_BYTES = 8_192
PAGE = 200


def read_secret(file: Path | None) -> str:
    """From a file, or from standard input. Raises `InvalidInput`, which does not repeat it."""
    try:
        with sys.stdin.buffer if file is None else file.open("rb") as source:
            said = source.read(MOST_BYTES + 1)
        if len(said) > MOST_BYTES:
            raise InvalidInput(f"a key has {MOST_BYTES} bytes at most")
        return read_key(lambda: said.decode("ascii"))
    except OSError as error:
        raise InvalidInput(f"{file or 'standard input'} cannot be read ({error.strerror})") from None
    except KeyUnusable:
        raise InvalidInput("this is no key: visible ASCII characters are wanted, and one line") from None


def add(data_dir: Path | None, provider: str, label: str, file: Path | None) -> int:
    async def adding() -> int:
        if not 1 <= len(label) <= 100 or not label.isprintable():
            raise InvalidInput("a label has 1 to 100 printable characters")
        secret = read_secret(file)
        async with opened(data_dir, EDGE_ROLE) as (database, settings):
            names = [each.name for each in settings.providers() if each.name != BUILTIN]
            if provider not in names:
                raise InvalidInput(f"there is no provider {provider!r}; providers: {', '.join(names) or 'none'}")
            order = CredentialOrder(typed_id(PREFIX, new_uuid()), provider, label, secret)
            added, _ = await Credentials(database, box_of(settings)).add(_operator(), order)
        say(added.id)
        return 0

    return guarded(adding())


def show(data_dir: Path | None, provider: str) -> int:
    async def showing() -> int:
        async with opened(data_dir, EDGE_ROLE) as (database, _):
            credentials, cursor = Credentials(database, None), None
            while True:
                found, cursor = await credentials.page(provider, cursor, PAGE)
                for each in found:
                    say(_line(each))
                if cursor is None:
                    return 0

    return guarded(showing())


def revoke(data_dir: Path | None, provider: str, credential_id: str) -> int:
    async def revoking() -> int:
        async with opened(data_dir, EDGE_ROLE) as (database, _):
            credentials = Credentials(database, None)
            await credentials.revoke(_operator(), await credentials.find(provider, credential_id))
        say(f"{credential_id} is revoked")
        return 0

    return guarded(revoking())


def _operator() -> Author:
    return Author(INSTALLATION, "system", "operator", new_uuid())


def _line(credential: Credential) -> str:
    used = credential.last_used_at
    told = "never used" if used is None else f"last used {used:%Y-%m-%d %H:%M}"
    return f"{credential.id}  {credential.state}  {credential.created_at:%Y-%m-%d %H:%M}  {told}  {credential.label}"
