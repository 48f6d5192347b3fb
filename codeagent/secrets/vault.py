"""Reads secrets from HashiCorp Vault, or whatever speaks its HTTP API: KV version 2, by token or AppRole."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import orjson

from codeagent.secrets.references import SecretUnavailable

TRIES = 3
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0
MOST_BYTES = 1 << 20
# 412: a replica that has not seen the newest write yet; 472 and 473: standbys.
_PASSES = frozenset({412, 429, 472, 473, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class VaultAddress:
    """`mount` is where the KV engine is. A read is bounded by `TRIES` times `timeout_seconds` and the pauses."""

    url: str
    mount: str = "secret"
    namespace: str | None = None
    certificates: Path | None = None
    timeout_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Token:
    value: str


@dataclass(frozen=True, slots=True)
class AppRole:
    role_id: str
    secret_id: str


Credential = Token | AppRole


def parse_approle(text: str) -> AppRole:
    """From JSON with `role_id` and `secret_id`. Raises `ValueError`, never quoting it."""
    try:
        found = orjson.loads(text)
        return AppRole(str(found["role_id"]), str(found["secret_id"]))
    except (ValueError, KeyError, TypeError):
        raise ValueError("it should be JSON with role_id and secret_id") from None


class _Refused(Exception):
    """The token is not accepted: it has ended, or may not read this."""


@dataclass(slots=True)
class _Login:
    token: str
    renew_at: float


class Vault:
    """Keeps what it has read for `ttl_seconds`. `credential` is asked anew at every login; it may raise
    `SecretUnavailable`."""

    def __init__(self, address: VaultAddress, credential: Callable[[], Credential], *, ttl_seconds: float) -> None:
        self.ttl_seconds = ttl_seconds
        self._address = address
        self._credential = credential
        self._login: _Login | None = None
        self._kept: dict[str, tuple[float, Mapping[str, str]]] = {}
        self._one_at_a_time = asyncio.Lock()
        verify: Any = True
        if address.certificates is not None:
            import ssl  # noqa: PLC0415  needed by the few

            verify = ssl.create_default_context(cafile=str(address.certificates))
        self._http = httpx2.AsyncClient(
            base_url=address.url,
            timeout=address.timeout_seconds,
            verify=verify,
            # A redirect would take the token elsewhere.
            follow_redirects=False,
            headers={"X-Vault-Request": "true"}
            | ({} if address.namespace is None else {"X-Vault-Namespace": address.namespace}),
        )

    async def read(self, path: str, *, fresh: bool = False) -> Mapping[str, str]:
        """The text fields of the newest version of a secret. Raises `SecretUnavailable`."""
        async with self._one_at_a_time:
            kept = self._kept.get(path)
            if kept is not None and not fresh and time.monotonic() - kept[0] < self.ttl_seconds:
                return kept[1]
            answer = await self._authorised(f"/v1/{self._address.mount}/data/{path}")
            fields = _fields(answer, path)
            self._kept[path] = (time.monotonic(), fields)
            return fields

    async def close(self) -> None:
        await self._http.aclose()

    async def _authorised(self, url: str) -> Any:
        """The answer to a read; a token that is refused is replaced once."""
        try:
            return await self._asked("GET", url, token=await self._token())
        except _Refused:
            self._login = None
        try:
            return await self._asked("GET", url, token=await self._token())
        except _Refused:
            raise SecretUnavailable("the vault refuses our credential, or the policy does not allow the path") from None

    async def _token(self) -> str:
        credential = self._credential()
        if isinstance(credential, Token):
            return credential.value
        if self._login is None or time.monotonic() > self._login.renew_at:
            self._login = await self._logged_in(credential)
        return self._login.token

    async def _logged_in(self, credential: AppRole) -> _Login:
        body = {"role_id": credential.role_id, "secret_id": credential.secret_id}
        try:
            answer = await self._asked("POST", "/v1/auth/approle/login", body=body)
            auth = answer["auth"]
            # In good time before it ends. Zero means that it does not.
            lasts = float(auth["lease_duration"]) or float("inf")
            return _Login(str(auth["client_token"]), time.monotonic() + lasts * 2 / 3)
        except _Refused:
            raise SecretUnavailable("the vault does not accept our AppRole") from None
        except (KeyError, TypeError, ValueError):
            raise SecretUnavailable("the vault's answer to a login cannot be understood") from None

    async def _asked(self, method: str, url: str, *, token: str | None = None, body: Any = None) -> Any:
        """The JSON of an answer. What may pass is tried again. Raises `_Refused` and `SecretUnavailable`."""
        pause, reason = FIRST_PAUSE_SECONDS, ""
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  spreads out, hides nothing
                pause = min(pause * 4, LONGEST_PAUSE_SECONDS)
            try:
                # Around the whole exchange: the client's own limits are for one read or write each.
                async with asyncio.timeout(self._address.timeout_seconds):
                    status, content = await self._exchange(method, url, token, body)
            except (httpx2.HTTPError, TimeoutError) as error:
                reason = type(error).__name__
                continue
            if status not in _PASSES:
                return _understood(status, content)
            reason = f"HTTP {status}"
        raise SecretUnavailable(f"the vault does not answer ({reason})")

    async def _exchange(self, method: str, url: str, token: str | None, body: Any) -> tuple[int, bytes]:
        headers = {} if token is None else {"X-Vault-Token": token}
        async with self._http.stream(method, url, headers=headers, json=body) as response:
            content = b""
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > MOST_BYTES:
                    raise SecretUnavailable("the vault's answer is too large")
            return response.status_code, content


def _understood(status: int, content: bytes) -> Any:
    if status in {400, 401, 403}:
        raise _Refused
    if status == 404:
        raise SecretUnavailable("the vault has no such secret, or its newest version is deleted")
    if status != 200:
        raise SecretUnavailable(f"the vault answers HTTP {status}")
    try:
        return orjson.loads(content)
    except ValueError:
        raise SecretUnavailable("the vault's answer is not JSON") from None


def _fields(answer: Any, path: str) -> Mapping[str, str]:
    try:
        data = answer["data"]["data"]
        return {str(name): value for name, value in data.items() if isinstance(value, str)}
    except (KeyError, TypeError, AttributeError):
        raise SecretUnavailable(f"the vault's {path} is no secret of a KV version 2 engine") from None
