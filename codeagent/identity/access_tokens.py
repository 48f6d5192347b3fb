"""Access tokens: issued from a grant, and turned back into the caller of a request without a query."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from codeagent import clock
from codeagent.identity.grants import Grant
from codeagent.identity.jwt import Claims, InvalidToken, read_header, sign, verify
from codeagent.identity.principal import Principal
from codeagent.identity.scopes import format_scopes, parse_scopes
from codeagent.identity.signing import SigningKeys


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """`expires_in` is in seconds."""

    text: str
    expires_in: int


class AccessTokens:
    """`issuer` and `audience` are both the address under which clients reach this API."""

    def __init__(self, keys: SigningKeys, *, issuer: str, lifetime: timedelta) -> None:
        self._keys = keys
        self._issuer = issuer
        self._lifetime = lifetime

    async def issue(self, grant: Grant) -> IssuedToken:
        """Raises `Unavailable` where there is no key to sign with."""
        now = int(clock.now().timestamp())
        seconds = int(self._lifetime.total_seconds())
        claims = Claims(
            iss=self._issuer,
            aud=self._issuer,
            sub=grant.subject,
            client_id=grant.client_id,
            iat=now,
            exp=now + seconds,
            jti=str(clock.new_uuid()),
            scope=format_scopes(grant.scopes),
            tenant_id=grant.tenant_id,
            auth_time=int(grant.auth_time.timestamp()),
            sid=grant.session_id,
        )
        return IssuedToken(sign(claims, await self._keys.signer()), seconds)

    async def read(self, token: str) -> Claims:
        """Raises `InvalidToken`, `ExpiredToken`, and `Unavailable` where the keys cannot be read."""
        key = await self._keys.find(read_header(token).kid)
        if key is None:
            raise InvalidToken
        return verify(token, key, issuer=self._issuer, audience=self._issuer)

    async def authenticate(self, credential: str) -> Principal | None:
        """The caller, or None for what is no valid token of ours. Raises `ExpiredToken`, since that is worth telling,
        and `Unavailable`. Whether the session has been revoked is for whoever asks (`Authenticator`) to tell."""
        try:
            return _principal(await self.read(credential))
        except InvalidToken:
            return None


def _principal(claims: Claims) -> Principal:
    try:
        scopes = parse_scopes(claims.scope)
    except ValueError:
        raise InvalidToken from None
    return Principal(
        claims.tenant_id,
        claims.sub,
        claims.sid,
        # A client that acts for itself is its own subject (RFC 9068, section 2.2).
        "service_account" if claims.sub == claims.client_id else "app_user",
        scopes,
        datetime.fromtimestamp(claims.exp, UTC),
        claims.jti,
    )
