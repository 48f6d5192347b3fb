"""The composition root's part that knows callers: credentials, and what has become of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from codeagent.cli.keys import FileKeys
from codeagent.encryption import SecretBox, parse_keys
from codeagent.eventlog.database import Database
from codeagent.identity.api_keys import ApiKeys
from codeagent.identity.authenticator import Authenticate, Authenticator
from codeagent.identity.key_lookup import DatabaseKeys
from codeagent.identity.keys import KeyHasher
from codeagent.identity.last_uses import LastUses
from codeagent.identity.passwords import Passwords
from codeagent.identity.principal import Principal
from codeagent.identity.refusals import Refusals, Refuse
from codeagent.identity.revocations import Revocations
from codeagent.identity.signing import RotationPolicy
from codeagent.identity.user_access import UserAccess, UserPolicy
from codeagent.settings import Settings


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls an edge."""

    authenticate: Authenticator
    files: FileKeys
    keys: ApiKeys
    revocations: Revocations
    uses: LastUses
    refusals: Refusals
    users: UserAccess | None

    def still_valid(self, caller: Principal) -> bool:
        """Whether a credential that was accepted has not been revoked since."""
        return not self.revocations.revoked(caller) and self.files.still_valid(caller)

    async def start(self) -> None:
        await self.revocations.start()
        await self.uses.start()
        await self.refusals.start()
        if self.users is not None:
            await self.users.start()

    async def stop(self) -> None:
        if self.users is not None:
            await self.users.stop()
        await self.refusals.stop()
        await self.uses.stop()
        await self.revocations.stop()


def identify(settings: Settings, database: Database, box: SecretBox | None) -> Identity:
    """`database` works under the edge's role. Without a `box` there are no users: their secrets could not be sealed."""
    revocations = Revocations(
        database,
        stale_seconds=settings.revocation_stale_seconds,
        fail_closed=settings.revocation_fail_closed,
    )
    uses, refusals = LastUses(database), Refusals(database)
    stored = DatabaseKeys(database, KeyHasher(settings.api_key_peppers()), uses.note)
    sources: list[Authenticate] = [stored.authenticate]
    users = None if box is None else user_access(settings, database, box, refusals.note)
    if users is not None:
        sources.append(users.tokens.authenticate)
    files = FileKeys(settings.api_keys_file)
    authenticate = Authenticator(files.authenticate, sources, revocations)
    return Identity(authenticate, files, api_keys(settings, database), revocations, uses, refusals, users)


def api_keys(settings: Settings, database: Database) -> ApiKeys:
    """The keys in a database that works under the edge's role."""
    longest = timedelta(days=settings.api_key_max_days)
    return ApiKeys(database, KeyHasher(settings.api_key_peppers()), longest_life=longest)


def secret_box(settings: Settings) -> SecretBox | None:
    """What seals secrets in the database; None where there is no key for it."""
    if settings.kek is None:
        return None
    return SecretBox(parse_keys(settings.kek.get_secret_value().splitlines()))


def rotation(settings: Settings) -> RotationPolicy:
    return RotationPolicy(settings.token_algorithm, every=timedelta(days=settings.signing_key_days))


def public_url(settings: Settings) -> str:
    """Where clients reach the edge: what its tokens name as their issuer and audience."""
    return (settings.public_url or f"http://{settings.http_host}:{settings.http_port}").rstrip("/")


def user_access(settings: Settings, database: Database, box: SecretBox, refuse: Refuse) -> UserAccess:
    """The users in a database that works under the edge's role."""
    return UserAccess(database, box, Passwords(), UserPolicy(public_url(settings), rotation(settings)), refuse)
