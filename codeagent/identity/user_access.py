"""The way in for users: all the parts of it, put together once."""

from __future__ import annotations

from dataclasses import dataclass, field

from codeagent.encryption import SecretBox
from codeagent.eventlog.database import Database
from codeagent.identity.access_tokens import AccessTokens
from codeagent.identity.accounts import Accounts
from codeagent.identity.digests import DigestSource
from codeagent.identity.grants import Grants
from codeagent.identity.jwt import check_backend
from codeagent.identity.logins import Logins
from codeagent.identity.members import Members
from codeagent.identity.passwords import Passwords
from codeagent.identity.refusals import Refuse
from codeagent.identity.service_accounts import ServiceAccounts
from codeagent.identity.sessions import SessionPolicy, Sessions
from codeagent.identity.signing import RotationPolicy, SigningKeys
from codeagent.identity.throttle import LoginThrottle, ThrottlePolicy
from codeagent.identity.upkeep import SigningKeyLoop


@dataclass(frozen=True, slots=True)
class UserPolicy:
    """`issuer` is the address under which clients reach the API, without a slash at its end."""

    issuer: str
    rotation: RotationPolicy = field(default_factory=RotationPolicy)
    sessions: SessionPolicy = field(default_factory=SessionPolicy)
    throttle: ThrottlePolicy = field(default_factory=ThrottlePolicy)


class UserAccess:
    """`database` works under the edge's role."""

    def __init__(
        self,
        database: Database,
        box: SecretBox,
        passwords: Passwords,
        policy: UserPolicy,
        refuse: Refuse = lambda *_: None,
    ) -> None:
        check_backend()
        self.digests = digests = DigestSource(database, box)
        throttle = LoginThrottle(database, policy.throttle)
        self.issuer = policy.issuer
        self.box = box
        self.passwords = passwords
        self.keys = SigningKeys(database, box, policy.rotation)
        self.tokens = AccessTokens(self.keys, issuer=policy.issuer, lifetime=policy.sessions.access)
        self.logins = Logins(database, digests, passwords, throttle, refuse)
        self.grants = Grants(database, digests, policy.sessions)
        self.sessions = Sessions(database, policy.sessions)
        self.accounts = Accounts(database, box, digests, passwords, throttle, policy.sessions)
        self.members = Members(database, box, digests, passwords, policy.sessions)
        self.service_accounts = ServiceAccounts(database, digests, policy.sessions, refuse)
        self._upkeep = SigningKeyLoop(self.keys)

    async def start(self) -> None:
        await self._upkeep.start()

    async def stop(self) -> None:
        await self._upkeep.stop()
        await self.passwords.close()
