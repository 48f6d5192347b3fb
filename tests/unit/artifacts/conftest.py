"""A folder for uploads, and a store on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from codeagent.artifacts.store import LocalArtifactStore
from tests.unit.artifacts.samples import Uploads


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    folder = tmp_path / "uploads"
    folder.mkdir()
    return Uploads(folder)


@pytest.fixture
async def root(tmp_path: Path) -> Path:
    return tmp_path / "new" / "artifacts"


@pytest.fixture
async def store(root: Path) -> LocalArtifactStore:
    store = LocalArtifactStore(root)
    await store.start()
    return store
