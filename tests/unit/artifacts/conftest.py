"""A folder for uploads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.artifacts.samples import Uploads


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    folder = tmp_path / "uploads"
    folder.mkdir()
    return Uploads(folder)
