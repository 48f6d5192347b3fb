"""Shared by every test: the servers, and how a missing part of the environment is reported."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

# Machines that tests run on are shared: how long an example takes says nothing there.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

pytest_plugins = ["tests.services.fixtures"]


def unavailable(reason: str) -> NoReturn:
    """Skips on a developer's machine; fails in CI, where every part is expected to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"required in CI but missing: {reason}")
    pytest.skip(reason)
