"""The databases of the integration tests, and an edge to attack."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.conftest import module_database_url, newest_database_url
from tests.security.attacked import Target, attacked_edge

__all__ = ["module_database_url", "newest_database_url"]


@pytest.fixture
async def target(newest_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Target]:
    async with attacked_edge(newest_database_url, tmp_path, monkeypatch, runs=1) as attacked:
        yield attacked
