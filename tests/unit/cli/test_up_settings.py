"""What `codeagent up` leaves for operators' commands on its data directory."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from codeagent.cli.operate import load_settings
from codeagent.cli.up import UpOptions, _settings, _write_settings


def test_secrets_are_written_as_they_are_for_their_owner_alone(tmp_path: Path) -> None:
    secrets = {"database_url": SecretStr("postgresql://u:p@h/d"), "api_key_pepper": SecretStr("p" * 32)}
    settings = _settings(UpOptions(tmp_path)).model_copy(update=secrets)
    _write_settings(UpOptions(tmp_path), settings)
    assert load_settings(tmp_path) == settings
    assert [oct(path.stat().st_mode)[-3:] for path in tmp_path.iterdir()] == ["600"]
