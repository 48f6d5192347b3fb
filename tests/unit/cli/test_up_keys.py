"""The API keys of a data directory: one of its own, and those that its operator puts beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codeagent.cli.connection import CONNECTION_FILE
from codeagent.cli.up import api_key
from codeagent.settings import Misconfigured

OPERATOR = {"key_id": "key_ops", "sha256": "0" * 64, "tenant_id": "ten_ops", "principal_id": "usr_ops"}


def test_entries_beside_its_own_outlive_a_restart(tmp_path: Path) -> None:
    key, file = api_key(tmp_path), tmp_path / "api-keys.json"
    (tmp_path / CONNECTION_FILE).write_text(json.dumps({"url": "http://127.0.0.1:1", "api_key": key}))
    (own,) = json.loads(file.read_text())
    file.write_text(json.dumps([OPERATOR, own]))
    assert api_key(tmp_path) == key
    assert json.loads(file.read_text()) == [own, OPERATOR]


@pytest.mark.parametrize("text", ["[", "{}x", '["key"]', "[{}]", "1"])
def test_a_file_that_it_cannot_keep_is_not_overwritten(tmp_path: Path, text: str) -> None:
    file = tmp_path / "api-keys.json"
    file.write_text(text)
    with pytest.raises(Misconfigured, match=r"api-keys\.json"):
        api_key(tmp_path)
    assert file.read_text() == text
