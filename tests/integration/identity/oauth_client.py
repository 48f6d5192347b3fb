"""A client as ours are: it logs in with a challenge, keeps a refresh token, and says what it was answered."""

from __future__ import annotations

import hashlib
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field

import httpx2


def encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def challenge(verifier: str) -> str:
    return encoded(hashlib.sha256(verifier.encode()).digest())


@dataclass
class OAuthClient:
    """One installation of `client_id`. `http` comes from one network address."""

    http: httpx2.AsyncClient
    client_id: str = "cli"
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    access: str = ""
    refresh: str = ""

    async def authorize(self, email: str, password: str, /, **more: str) -> httpx2.Response:
        body = {
            "client_id": self.client_id,
            "email": email,
            "password": password,
            "code_challenge": challenge(self.verifier),
            "code_challenge_method": "S256",
        } | more
        return await self.http.post("/oauth2/authorize", json=body)

    async def redeem(self, code: str, verifier: str | None = None) -> httpx2.Response:
        return await self._token(grant_type="authorization_code", code=code, code_verifier=verifier or self.verifier)

    async def log_in(self, email: str, password: str, **more: str) -> httpx2.Response:
        """The token endpoint's answer; raises where the password is refused."""
        answer = await self.authorize(email, password, **more)
        answer.raise_for_status()
        return self._kept(await self.redeem(answer.json()["code"]))

    async def renew(self, token: str | None = None) -> httpx2.Response:
        """Uses a refresh token, the newest unless told otherwise."""
        return self._kept(await self._token(grant_type="refresh_token", refresh_token=token or self.refresh))

    async def _token(self, **form: str) -> httpx2.Response:
        return await self.http.post("/oauth2/token", data={"client_id": self.client_id, **form})

    def _kept(self, answer: httpx2.Response) -> httpx2.Response:
        if answer.status_code == 200:
            self.access, self.refresh = answer.json()["access_token"], answer.json()["refresh_token"]
        return answer

    async def call(
        self, method: str, path: str, headers: dict[str, str] | None = None, **more: object
    ) -> httpx2.Response:
        """A request with the access token."""
        shown = {"Authorization": f"Bearer {self.access}", **(headers or {})}
        return await self.http.request(method, path, headers=shown, **more)  # type: ignore[arg-type]

    async def get(self, path: str) -> httpx2.Response:
        return await self.call("GET", path)
