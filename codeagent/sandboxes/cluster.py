"""Talks to a Kubernetes API server: a handful of requests, each with a time limit, under the pod's own identity."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

from codeagent.sandboxes.outcome import last_words
from codeagent.sandboxes.protocol import SandboxFailure
from codeagent.sandboxes.uninterrupted import in_thread

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
REQUEST_SECONDS = 15.0
_MOST_BYTES = 16 << 20
_RETRYABLE = frozenset({401, 408, 429, 500, 502, 503, 504})


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

    def missing(self) -> list[str]:
        """What is not set up, as sentences. Blocking."""
        lacks = []
        if not self.address:
            lacks.append("there is no cluster around: set CODEAGENT_SANDBOX_KUBERNETES_URL")
        if "@sha256:" not in self.image:
            lacks.append("set CODEAGENT_SANDBOX_IMAGE to an image pinned as NAME@sha256:...")
        needed = ("token", "ca.crt") if self.address.startswith("https:") else ("token",)
        lacks += [
            f"there is no {self.credentials / name}" for name in needed if not (self.credentials / name).is_file()
        ]
        return lacks


class ApiRefused(SandboxFailure):
    """The API server's refusal. `status`: its HTTP status."""

    def __init__(self, http_status: int, words: str) -> None:
        over_quota = http_status == 403 and "exceeded quota" in words
        passes = http_status in _RETRYABLE or over_quota
        reason = "quota_exceeded" if over_quota else "cluster_unavailable" if passes else "pod_refused"
        super().__init__(f"the cluster refuses ({http_status}): {words}", reason=reason, retryable=passes)
        self.http_status = http_status


class ClusterApi:
    """Requests to one API server. Certificates are read again when they have changed, the token for every request."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._http: httpx2.AsyncClient | None = None
        self._trusted: tuple[ssl.SSLContext, float] | None = None

    async def ask(
        self, method: str, path: str, body: Any = None, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The answer. `path` as after the server's address. Raises `ApiRefused`, and `SandboxFailure`
        (`cluster_unavailable`, retryable) without an answer in 15 seconds."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                headers = await self.headers()
                http = await self._client()
                answer = await http.request(method, path, json=body, params=query, headers=headers)
        except (httpx2.HTTPError, OSError, TimeoutError) as error:
            why = f"the cluster does not answer ({type(error).__name__})"
            raise SandboxFailure(why, reason="cluster_unavailable") from None
        return _understood(answer)

    def namespaced(self, kind: str, name: str = "", group: str = "/api/v1") -> str:
        """The path of the driver's objects of a kind, or of one of them."""
        path = f"{group}/namespaces/{quote(self.cluster.namespace, safe='')}/{kind}"
        return f"{path}/{quote(name, safe='')}" if name else path

    async def headers(self) -> dict[str, str]:
        """What shows who asks. Raises `OSError`."""
        token = await in_thread((self.cluster.credentials / "token").read_text, encoding="ascii")
        return {"Authorization": f"Bearer {token.strip()}"}

    async def trust(self) -> ssl.SSLContext | None:
        """Whom to believe; `None` for plain HTTP. Raises `OSError`."""
        if not self.cluster.address.startswith("https:"):
            return None
        path = self.cluster.credentials / "ca.crt"
        changed = (await in_thread(path.stat)).st_mtime
        if self._trusted is None or self._trusted[1] != changed:
            self._trusted = (await in_thread(ssl.create_default_context, cafile=str(path)), changed)
        return self._trusted[0]

    async def _client(self) -> httpx2.AsyncClient:
        before = self._trusted
        trust = await self.trust()
        if self._http is None or before != self._trusted:
            await self.close()
            self._http = httpx2.AsyncClient(
                base_url=self.cluster.address,
                timeout=REQUEST_SECONDS,
                verify=trust or True,
                # A redirect would take the token elsewhere; a proxy is not told of it either.
                follow_redirects=False,
                trust_env=False,
            )
        return self._http

    async def close(self) -> None:
        """Ends its connections. It can be used again."""
        http, self._http = self._http, None
        if http is not None:
            with suppress(httpx2.HTTPError):
                await http.aclose()


def _understood(answer: httpx2.Response) -> dict[str, Any]:
    try:
        content: Any = answer.json() if len(answer.content) <= _MOST_BYTES else None
    except ValueError:
        content = None
    if not answer.is_success:
        words = content.get("message", "") if isinstance(content, dict) else ""
        raise ApiRefused(answer.status_code, last_words(str(words).encode()))
    if not isinstance(content, dict):
        raise SandboxFailure("the cluster's answer cannot be read", reason="cluster_unavailable")
    return content
