"""Whether a provider's server answers, asked without a key, a model or a cost, while nobody else asks it anything."""

from __future__ import annotations

import asyncio

import httpx2

from codeagent.providers.breaker import Breaker, CircuitOpen, Outcome
from codeagent.providers.registry import ProviderSettings

_OFFICIAL = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com/v1",
    "google": "https://generativelanguage.googleapis.com/v1beta",
}


class Prober:
    """Probes one provider, where its breaker knows nothing of it or does not let calls through, and nobody has tried to
    call it for `idle_seconds`. Any answer but a server's own failure will do: a refusal for want of a key is one."""

    def __init__(
        self, settings: ProviderSettings, breaker: Breaker, *, idle_seconds: float = 30.0, timeout_seconds: float = 10.0
    ) -> None:
        base = settings.base_url or _OFFICIAL.get(settings.kind)
        self._url = None if base is None else f"{base}/models"
        self._breaker = breaker
        self._idle_seconds = idle_seconds
        self._timeout_seconds = timeout_seconds

    async def look(self) -> None:
        """Probes now, if that is due."""
        standing = self._breaker.standing
        known = standing.answered_ago is not None or standing.failed_ago is not None
        idle = standing.used_ago is None or standing.used_ago >= self._idle_seconds
        if self._url is None or not idle or (known and standing.state == "closed"):
            return
        try:
            admission = self._breaker.admit()
        except CircuitOpen:
            return
        outcome: Outcome = "neutral"
        try:
            outcome = await self._answer(self._url)
        finally:
            self._breaker.record(admission, outcome, "connection")

    async def _answer(self, url: str) -> Outcome:
        """By the status alone: a body may have no end."""
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                httpx2.AsyncClient(timeout=self._timeout_seconds, follow_redirects=False) as client,
                client.stream("GET", url) as answer,
            ):
                return "failure" if answer.status_code >= 500 else "success"
        except (httpx2.HTTPError, OSError):
            return "failure"
