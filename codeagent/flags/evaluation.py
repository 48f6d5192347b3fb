"""Asks whether a feature is on for a caller, through OpenFeature, at the cost of a look into a dictionary."""

from __future__ import annotations

import time

from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.provider import FeatureProvider

from codeagent.flags.features import Feature

DOMAIN = "codeagent"
KEEP_SECONDS = 0.5
MOST_KEPT = 10_000


class Features:
    """Answers are kept for half a second, since an evaluation by the SDK takes twenty microseconds: too much for what
    every request asks several times. Without a client every feature has its default."""

    def __init__(self, client: OpenFeatureClient | None = None) -> None:
        self._client = client
        self._kept: dict[tuple[str, str, str], tuple[float, bool]] = {}

    def enabled(self, feature: Feature, tenant_id: str, principal_id: str = "") -> bool:
        """Whether the feature is on. Never raises and never waits; the default where it cannot be known."""
        if self._client is None:
            return feature.default
        key, now = (feature.name, tenant_id, principal_id), time.monotonic()
        kept = self._kept.get(key)
        if kept is not None and kept[0] > now:
            return kept[1]
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        context = EvaluationContext(principal_id or None, {"tenant_id": tenant_id})
        value = self._client.get_boolean_value(feature.name, feature.default, context)
        self._kept[key] = (now + KEEP_SECONDS, value)
        return value


def features_of(provider: FeatureProvider, domain: str = DOMAIN) -> Features:
    """The features as a provider has them: the file's, or that of any vendor with an OpenFeature provider."""
    # And wait: otherwise a thread would start it, and the first requests would find it not ready.
    api.set_provider_and_wait(provider, domain)
    return Features(api.get_client(domain))
