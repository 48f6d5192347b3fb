"""Talks to a Kubernetes API server: a handful of requests, each with a time limit, under the pod's own identity."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2

from codeagent.sandboxes.outcome import last_words
from codeagent.sandboxes.protocol import SandboxFailure
from codeagent.sandboxes.uninterrupted import in_thread

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
REQUEST_SECONDS = 15.0
_MOST_BYTES = 16 << 20
_RETRYABLE = frozenset({401, 408, 409, 410, 429, 500, 502, 503, 504})
_PAUSES_SECONDS = (0.1, 0.4, 1.0, 2.0)
_LONGEST_PAUSE_SECONDS = 5.0
_BUSY = 429


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the pods are made, and of what.

    `url`: the API server; empty: what the environment of a pod names. `credentials`: directory of `token` and `ca.crt`,
    which the cluster renews. `image`: `NAME@sha256:...`. `runtime_class`: of sandboxes with a kernel of their own.
    """

    image: str = ""
    namespace: str = "codeagent-sandboxes"
    runtime_class: str = "gvisor"
    url: str = ""
    credentials: Path = SERVICE_ACCOUNT

    @property
    def address(self) -> str:
        """Empty outside a cluster."""
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        inside = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        return self.url.rstrip("/") or (inside if host else "")

    @property
    def _is_private(self) -> bool:
        """Whether nobody on the way reads along: TLS, or no way at all."""
        parts = urlsplit(self.address)
        return parts.scheme == "https" or _is_loopback(parts.hostname or "")

    def missing(self) -> list[str]:
        """What is not set up, as sentences. Blocking."""
        lacks = []
        if not self.address:
            lacks.append("there is no cluster around: set CODEAGENT_SANDBOX_KUBERNETES_URL")
        elif not self._is_private:
            lacks.append("CODEAGENT_SANDBOX_KUBERNETES_URL has to begin with https://: a token is shown there")
        if "@sha256:" not in self.image:
            lacks.append("set CODEAGENT_SANDBOX_IMAGE to an image pinned as NAME@sha256:...")
        needed = ("token", "ca.crt") if self.address.startswith("https:") else ("token",)
        lacks += [
            f"there is no {self.credentials / name}" for name in needed if not (self.credentials / name).is_file()
        ]
        return lacks


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ApiRefused(SandboxFailure):
    """The API server's refusal. `http_status` and `kind`: its status, and the reason it names, as in `AlreadyExists`.
    `after_seconds`: when to ask again, as it says; 0 where it does not."""

    def __init__(self, http_status: int, words: str, kind: str = "", after_seconds: float = 0.0) -> None:
        over_quota = http_status == 403 and "exceeded quota" in words
        passes = http_status in _RETRYABLE or over_quota
        reason = "quota_exceeded" if over_quota else "cluster_unavailable" if passes else "pod_refused"
        detail = f"the cluster refuses ({http_status}): {last_words(words.encode())}"
        super().__init__(detail, reason=reason, retryable=passes)
        self.http_status = http_status
        self.kind = kind
        self.after_seconds = after_seconds

    @property
    def did_nothing(self) -> bool:
        """Whether it is certain that the request had no effect, and would have one a little later."""
        return self.http_status == _BUSY or self.kind == "Conflict"


class NoAnswer(SandboxFailure):
    """Nobody knows whether the request had an effect."""

    def __init__(self, error: Exception) -> None:
        why = f"the cluster does not answer ({type(error).__name__})"
        super().__init__(why, reason="cluster_unavailable")


class ClusterApi:
    """Requests to one API server. Certificates are read again when they have changed, the token for every request."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._clients: list[tuple[httpx2.AsyncClient, ssl.SSLContext | None]] = []
        self._trusted: tuple[ssl.SSLContext, float] | None = None
        self._trusting = asyncio.Lock()

    async def ask(
        self, method: str, path: str, body: Any = None, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The answer. `path` as after the server's address. Asked again for a while where the last time had no effect
        or one more does no harm. Raises `ApiRefused`, `NoAnswer` (within 15 seconds), and `SandboxFailure` where the
        credentials cannot be read."""
        end = time.monotonic() + REQUEST_SECONDS
        for pause in _PAUSES_SECONDS:
            try:
                return await self._once(method, path, body, query, end)
            except (ApiRefused, NoAnswer) as failure:
                wait = max(pause, min(getattr(failure, "after_seconds", 0.0), _LONGEST_PAUSE_SECONDS))
                if not _bears_repeating(method, failure) or time.monotonic() + wait >= end:
                    raise
            await asyncio.sleep(wait)
        return await self._once(method, path, body, query, end)

    async def _once(
        self, method: str, path: str, body: Any, query: Mapping[str, str] | None, end: float
    ) -> dict[str, Any]:
        headers, trust = await self.headers(), await self.trust()
        try:
            async with asyncio.timeout(end - time.monotonic()):
                answer = await self._client(trust).request(method, path, json=body, params=query, headers=headers)
        except (httpx2.HTTPError, OSError, TimeoutError) as error:
            raise NoAnswer(error) from None
        return _understood(answer)

    def namespaced(self, kind: str, name: str = "", group: str = "/api/v1") -> str:
        """The path of the driver's objects of a kind, or of one of them."""
        path = f"{group}/namespaces/{quote(self.cluster.namespace, safe='')}/{kind}"
        return f"{path}/{quote(name, safe='')}" if name else path

    async def headers(self) -> dict[str, str]:
        """What shows who asks. Raises `SandboxFailure`."""
        path = self.cluster.credentials / "token"
        try:
            token = (await in_thread(path.read_text, encoding="ascii")).strip()
        except (OSError, UnicodeError):
            token = ""
        if not token.isprintable() or not token or " " in token:
            raise SandboxFailure(f"there is no token in {path}", reason="cluster_unavailable")
        return {"Authorization": f"Bearer {token}"}

    async def trust(self) -> ssl.SSLContext | None:
        """Whom to believe; `None` for plain HTTP. Raises `SandboxFailure`."""
        if not self.cluster.address.startswith("https:"):
            return None
        path = self.cluster.credentials / "ca.crt"
        async with self._trusting:
            try:
                changed = (await in_thread(path.stat)).st_mtime
                if self._trusted is None or self._trusted[1] != changed:
                    self._trusted = (await in_thread(ssl.create_default_context, cafile=str(path)), changed)
            except OSError:
                raise SandboxFailure(f"there are no certificates in {path}", reason="cluster_unavailable") from None
            return self._trusted[0]

    def _client(self, trust: ssl.SSLContext | None) -> httpx2.AsyncClient:
        """The newest, made anew for new certificates. One that was replaced may still be at work."""
        if not self._clients or self._clients[-1][1] is not trust:
            http = httpx2.AsyncClient(
                base_url=self.cluster.address,
                timeout=REQUEST_SECONDS,
                verify=trust or True,
                # A redirect would take the token elsewhere; a proxy is not told of it either.
                follow_redirects=False,
                trust_env=False,
            )
            self._clients.append((http, trust))
        return self._clients[-1][0]

    async def close(self) -> None:
        """Ends its connections. It can be used again."""
        clients, self._clients = self._clients, []
        for http, _ in clients:
            with suppress(httpx2.HTTPError):
                await http.aclose()


def _bears_repeating(method: str, failure: ApiRefused | NoAnswer) -> bool:
    if isinstance(failure, NoAnswer):
        return method != "POST"
    return failure.did_nothing or (method != "POST" and failure.http_status >= 500)


def _understood(answer: httpx2.Response) -> dict[str, Any]:
    try:
        content: Any = answer.json() if len(answer.content) <= _MOST_BYTES else None
    except ValueError:
        content = None
    told = content if isinstance(content, dict) else {}
    if not answer.is_success:
        after = answer.headers.get("retry-after", "")
        raise ApiRefused(
            answer.status_code,
            str(told.get("message", "")),
            str(told.get("reason", "")),
            float(after) if after.isdecimal() else 0.0,
        )
    if not isinstance(content, dict):
        raise SandboxFailure("the cluster's answer cannot be read", reason="cluster_unavailable")
    return content
