"""Where a system runs: what differs by default between a laptop and the real thing, and what may be insecure there."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any


class Environment(StrEnum):
    """How strict the configuration is: `production` refuses insecure values, `staging` warns of them."""

    DEVELOPMENT = "development"
    STAGING = "staging"
    PRODUCTION = "production"


class Risk(StrEnum):
    """What production refuses unless the operator says why it is no risk here."""

    PLAINTEXT_DATABASE = "plaintext_database"
    PLAINTEXT_BROKER = "plaintext_broker"
    PLAINTEXT_TRACES = "plaintext_traces"
    PLAINTEXT_PROVIDER = "plaintext_provider"
    OPEN_MONITOR = "open_monitor"
    READABLE_FILES = "readable_files"


_BY_PROFILE: dict[str, tuple[Any, Any, Any]] = {
    # setting             development  staging   production
    "kafka_replication": (1, 3, 3),
    "topics_profile": ("dev", "medium", "medium"),
    "trace_ratio": (1.0, 1.0, 0.1),
    "sandbox_minimum_level": (2, None, None),
}
"""Every default that depends on the environment, `None` where there is none; all others are the same everywhere."""

PROFILES: Mapping[Environment, Mapping[str, Any]] = MappingProxyType(
    {
        environment: MappingProxyType(
            {name: values[place] for name, values in _BY_PROFILE.items() if values[place] is not None}
        )
        for place, environment in enumerate(Environment)
    }
)
