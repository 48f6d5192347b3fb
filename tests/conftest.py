"""Shared by every test: the servers, and how a missing part of the environment is reported."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

pytest_plugins = ["tests.services.fixtures"]


def unavailable(reason: str) -> NoReturn:
    """Skips on a developer's machine; fails in CI, where every part is expected to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"required in CI but missing: {reason}")
    pytest.skip(reason)
