"""The composition root's part that knows callers: credentials, and what has become of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from codeagent.cli.keys import FileKeys
from codeagent.eventlog.database import Database
from codeagent.identity.api_keys import ApiKeys
from codeagent.identity.authenticator import Authenticator
from codeagent.identity.key_lookup import DatabaseKeys
from codeagent.identity.keys import KeyHasher
from codeagent.identity.last_uses import LastUses
from codeagent.identity.revocations import Revocations
from codeagent.settings import Settings


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls an edge."""

    authenticate: Authenticator
    keys: ApiKeys
    revocations: Revocations
    uses: LastUses

    async def start(self) -> None:
        await self.revocations.start()
        await self.uses.start()

    async def stop(self) -> None:
        await self.uses.stop()
        await self.revocations.stop()


def identify(settings: Settings, database: Database) -> Identity:
    """`database` works under the edge's role."""
    revocations = Revocations(
        database,
        stale_seconds=settings.revocation_stale_seconds,
        fail_closed=settings.revocation_fail_closed,
    )
    uses = LastUses(database)
    stored = DatabaseKeys(database, KeyHasher(settings.api_key_peppers()), uses.note)
    authenticate = Authenticator(FileKeys(settings.api_keys_file).authenticate, [stored.authenticate], revocations)
    return Identity(authenticate, api_keys(settings, database), revocations, uses)


def api_keys(settings: Settings, database: Database) -> ApiKeys:
    """The keys in a database that works under the edge's role."""
    longest = timedelta(days=settings.api_key_max_days)
    return ApiKeys(database, KeyHasher(settings.api_key_peppers()), longest_life=longest)
