"""`codeagent providers prices`: what calls cost, and by which figures that was counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codeagent.cli.main import app

PROVIDERS = [
    {
        "name": "local",
        "kind": "openai",
        "base_url": "http://127.0.0.1:1/v1",
        "models": ["small", "unpriced"],
        "prices": {
            "small": [
                {"input_usd": "1.50", "output_usd": "2"},
                {"from": "2026-11-01", "input_usd": "0.5", "output_usd": "1", "cache_read_usd": "0.1"},
            ]
        },
    },
    {"name": "openai", "kind": "openai", "api_key": "not-shown"},
]


def table(folder: Path, *arguments: str) -> tuple[int, list[list[str]], str]:
    file = folder / "providers.json"
    file.write_text(json.dumps(PROVIDERS))
    result = CliRunner().invoke(app, ["providers", "prices", "--providers", str(file), *arguments])
    assert "not-shown" not in result.output
    return result.exit_code, [line.split() for line in result.output.splitlines()], result.output


def test_every_model_that_is_listed_or_priced_is_shown_as_of_a_day(tmp_path: Path) -> None:
    status, lines, _ = table(tmp_path, "--on", "2026-10-31")
    assert status == 0
    rows = {line[0]: line[1:] for line in lines[1:]}
    assert rows["local/small"][:6] == ["1.5", "2", "1.5", "1.5", "operator", "undated"]
    assert rows["local/unpriced"] == ["-"] * 7
    assert rows["builtin/repair"][:5] == ["0", "0", "0", "0", "free"]
    later = {line[0]: line[1:] for line in table(tmp_path, "--on", "2026-11-01")[1][1:]}
    assert later["local/small"][:6] == ["0.5", "1", "0.1", "0.5", "operator", "2026-11-01"]


def test_one_model_is_shown_also_of_a_provider_that_takes_any(tmp_path: Path) -> None:
    _, lines, _ = table(tmp_path, "--model", "openai/gpt-5")
    assert [line[0] for line in lines] == ["model", "openai/gpt-5"]
    assert lines[1][5] == "list"


@pytest.mark.parametrize("arguments", [("--model", "nobody/x"), ("--on", "yesterday"), ("--providers", "/none")])
def test_what_cannot_be_shown_is_said(tmp_path: Path, arguments: tuple[str, str]) -> None:
    status, _, output = table(tmp_path, *arguments)
    assert status == 2
    assert "Traceback" not in output
