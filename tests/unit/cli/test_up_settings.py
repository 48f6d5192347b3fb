"""What `codeagent up` leaves for operators' commands on its data directory."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from codeagent.cli.operate import load_settings
from codeagent.cli.up_settings import UpOptions, up_settings, write_settings


def test_the_address_and_references_are_written_for_their_owner_alone_and_no_other_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODEAGENT_API_KEY_PEPPER", "p" * 32)
    monkeypatch.setenv("CODEAGENT_VAULT_TOKEN_FILE", "/run/secrets/token")
    address = {"database_url": SecretStr("postgresql://u:p@h/d")}
    settings = up_settings(UpOptions(tmp_path)).model_copy(update=address)
    write_settings(UpOptions(tmp_path), settings)
    [path] = tmp_path.iterdir()
    assert oct(path.stat().st_mode)[-3:] == "600"
    assert "pppp" not in path.read_text()
    assert load_settings(tmp_path) == settings
    monkeypatch.delenv("CODEAGENT_API_KEY_PEPPER")
    assert load_settings(tmp_path) == settings.model_copy(update={"api_key_pepper": None})
