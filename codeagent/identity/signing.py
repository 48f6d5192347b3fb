"""The installation's signing keys: published before they sign, kept until the last token they signed is gone.

A key's part follows from the time alone: the newest one whose `active_from` has come signs, all that are there verify.
So edges need no agreement, and rotation is nothing but a new row.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Literal

from codeagent import clock
from codeagent.encryption import SecretBox
from codeagent.errors import Unavailable
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import Author, Change, ControlPlane
from codeagent.identity.jwt import Algorithm, SigningKey, VerifyingKey, generate_key
from codeagent.messages.identity_events import SigningKeyPublished, SigningKeyRemoved
from codeagent.messages.ids import INSTALLATION, signing_stream, typed_id
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

_LOCK = 0x6B657973  # any fixed number: one process rotates at a time
_RELOAD_SECONDS = 2.0
"""How soon an unknown `kid` may make us look again: forged ones cost one query in that time, however many they are."""


@dataclass(frozen=True, slots=True)
class RotationPolicy:
    """`lead` is how long a key is published before it signs, `overlap` how long it verifies after its successor has
    begun to sign: longer than any token lives."""

    algorithm: Algorithm = "ES256"
    every: timedelta = timedelta(days=30)
    lead: timedelta = timedelta(hours=24)
    overlap: timedelta = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Rotation:
    """What is due: a key that signs from `publish` on, and keys that nobody needs."""

    publish: datetime | None = None
    remove: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.publish is not None or bool(self.remove)


@dataclass(frozen=True, slots=True)
class KeyAge:
    """What a rotation is planned by."""

    kid: str
    algorithm: str
    active_from: datetime


@dataclass(frozen=True, slots=True)
class KnownKey:
    """One row, opened."""

    age: KeyAge
    verifying: VerifyingKey
    signing: SigningKey


def plan_rotation(keys: Sequence[KeyAge], policy: RotationPolicy, now: datetime) -> Rotation:
    """`keys` are ordered by `active_from`."""
    if not keys:
        return Rotation(publish=now)
    newest = keys[-1]
    remove = tuple(key.kid for key, successor in pairwise(keys) if successor.active_from + policy.overlap < now)
    due = newest.active_from + policy.every
    if newest.algorithm != policy.algorithm and newest.active_from <= now:
        due = now
    return Rotation(max(now + policy.lead, due) if due - policy.lead <= now else None, remove)


class SigningKeys:
    """The keys in memory, read again regularly (`refresh`) and when a token names one that is not there."""

    def __init__(self, database: Database, box: SecretBox, policy: RotationPolicy | None = None) -> None:
        self._database = database
        self._control = ControlPlane(database)
        self._box = box
        self._policy = policy or RotationPolicy()
        self._keys: dict[str, KnownKey] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def signer(self) -> SigningKey:
        """The key that signs now. Raises `Unavailable` before there is one."""
        if not self._keys:
            await self._reread(_RELOAD_SECONDS)
        now = clock.now()
        active = [key for key in self._keys.values() if key.age.active_from <= now]
        if not active:
            raise Unavailable("There is no key to sign with yet.")
        return active[-1].signing

    async def find(self, kid: str) -> VerifyingKey | None:
        """The key of that name, which another edge may have made a moment ago."""
        if kid not in self._keys:
            await self._reread(_RELOAD_SECONDS)
        known = self._keys.get(kid)
        return None if known is None else known.verifying

    async def jwks(self) -> dict[str, Any]:
        """What verifiers elsewhere may know (RFC 7517)."""
        if not self._keys:
            await self._reread(_RELOAD_SECONDS)
        return {"keys": [key.verifying.to_jwk() for key in self._keys.values()]}

    async def refresh(self) -> None:
        """Reads the keys, and makes or removes what is due."""
        await self._reread(0.0)
        if plan_rotation([key.age for key in self._keys.values()], self._policy, clock.now()):
            await self.rotate()

    async def _reread(self, not_within: float) -> None:
        async with self._reading:
            if time.monotonic() - self._read_at < not_within:
                return
            rows = await self._database.fetch("SELECT * FROM signing_keys ORDER BY active_from")
            # A row never changes: keys that are known need not be opened again.
            self._keys = {row["kid"]: self._keys.get(row["kid"]) or self._opened(row) for row in rows}
            self._read_at = time.monotonic()

    def _opened(self, row: Row) -> KnownKey:
        kid, algorithm = row["kid"], row["algorithm"]
        private = self._box.open(row["private_sealed"], _place(kid))
        return KnownKey(
            KeyAge(kid, algorithm, row["active_from"]),
            VerifyingKey.from_pem(kid, algorithm, row["public_key"]),
            SigningKey.from_pem(kid, algorithm, private),
        )

    async def rotate(self) -> Rotation:
        """Does what the policy says is due. Several processes may call it at once: one does it."""
        return await self._change(lambda keys: plan_rotation(keys, self._policy, clock.now()), "expired")

    async def publish_successor(self) -> Rotation:
        """Makes the next key before its time; it signs once it has been published for the policy's lead."""
        return await self._change(lambda _: Rotation(clock.now() + self._policy.lead), "expired")

    async def replace_all(self) -> Rotation:
        """Makes a key that signs at once and removes all others, for keys that somebody may have: every access token
        there is gets refused, and clients refresh."""
        return await self._change(lambda keys: Rotation(clock.now(), tuple(key.kid for key in keys)), "revoked")

    async def _change(
        self, decide: Callable[[Sequence[KeyAge]], Rotation], reason: Literal["expired", "revoked"]
    ) -> Rotation:
        author = Author(INSTALLATION, "system", "system", clock.new_uuid())
        async with self._control.change(author) as change:
            await change.rows("SELECT pg_advisory_xact_lock($1)", _LOCK)
            rows = await change.rows("SELECT kid, algorithm, active_from FROM signing_keys ORDER BY active_from")
            rotation = decide([KeyAge(row["kid"], row["algorithm"], row["active_from"]) for row in rows])
            if rotation.publish is not None:
                await self._publish(change, rotation.publish)
            for kid in rotation.remove:
                await change.rows("DELETE FROM signing_keys WHERE kid = $1", kid)
                await change.record(signing_stream(kid), 2, SigningKeyRemoved(kid=kid, reason=reason))
        await self._reread(0.0)
        log.info("signing_keys.rotated", published=rotation.publish is not None, removed=len(rotation.remove))
        return rotation

    async def _publish(self, change: Change, active_from: datetime) -> None:
        kid, algorithm = typed_id("sgk", clock.new_uuid()), self._policy.algorithm
        private, public = await asyncio.to_thread(generate_key, algorithm)
        await change.rows(
            """INSERT INTO signing_keys (kid, algorithm, public_key, private_sealed, active_from)
               VALUES ($1, $2, $3, $4, $5)""",
            kid,
            algorithm,
            public,
            self._box.seal(private, _place(kid)),
            active_from,
        )
        fact = SigningKeyPublished(kid=kid, algorithm=algorithm, active_from=active_from)
        await change.record(signing_stream(kid), 1, fact)


def _place(kid: str) -> str:
    return f"signing_keys/{kid}/private"
