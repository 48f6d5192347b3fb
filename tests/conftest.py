"""Shared by every test: the servers, and how a missing part of the environment is reported."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import structlog
from hypothesis import HealthCheck, settings

# Machines that tests run on are shared: how long an example takes says nothing there.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

# The default draws every frame of an exception with all its variables, which takes seconds.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.processors.KeyValueRenderer(key_order=["event"]),
    ]
)

pytest_plugins = ["tests.side_by_side", "tests.services.fixtures"]

SEED = int(os.environ.get("CODEAGENT_TEST_SEED", "7"))
"""Of every test that draws what happens."""


def let_everyone_pass(directory: Path) -> None:
    """Other users reach what is below it, as far as its own mode lets them. pytest keeps its directories to one."""
    for folder in (directory, *directory.parents):
        if folder.stat().st_uid == os.geteuid() and folder.is_relative_to(tempfile.gettempdir()):
            folder.chmod(folder.stat().st_mode | 0o011)


def unavailable(reason: str) -> NoReturn:
    """Skips on a developer's machine; fails in CI, where every part is expected to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"required in CI but missing: {reason}")
    pytest.skip(reason)


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Adds a line to the end of the output, where it stands for a test that passed as well."""
    from tests.side_by_side import note  # late: a plugin is loaded by pytest first

    note(f"{request.node.name}:")
    return lambda line: note(f"  {line}")
