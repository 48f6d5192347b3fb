"""Providers by name: what is accepted as settings, what is found, and what an unknown model is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from codeagent.errors import InvalidInput
from codeagent.providers.keys import ApiKey, KeyUnusable
from codeagent.providers.registry import ProviderRegistry, ProviderSettings
from codeagent.providers.repair.provider import RepairProvider


def settings(**fields: Any) -> ProviderSettings:
    return ProviderSettings(**{"name": "local", "kind": "openai", "base_url": "http://127.0.0.1:1/v1", **fields})


def test_the_built_in_model_needs_no_settings() -> None:
    registry = ProviderRegistry()
    provider, model = registry.resolve("builtin/repair")
    assert isinstance(provider, RepairProvider)
    assert model == "repair"
    assert registry.names() == ("builtin",)
    assert registry.models() == ("builtin/repair",)


async def test_each_kind_resolves_to_one_provider_however_often_it_is_asked_for() -> None:
    registry = ProviderRegistry([settings(), settings(name="claude", kind="anthropic", base_url="http://127.0.0.1:1")])
    for name in ("local", "claude"):
        provider, model = registry.resolve(f"{name}/some/model:7b")
        assert (provider.name, model) == (name, "some/model:7b")
        assert registry.resolve(f"{name}/other")[0] is provider
    await registry.close()
    await registry.close()


async def test_preloading_builds_every_provider_before_the_first_call() -> None:
    registry = ProviderRegistry([settings(), settings(name="claude", kind="anthropic", base_url="http://127.0.0.1:1")])
    registry.preload()
    before = registry.resolve("claude/x")[0]
    registry.preload()
    assert registry.resolve("claude/x")[0] is before
    await registry.close()


@pytest.mark.parametrize(
    "model",
    ["", "local", "local/", "/x", "nobody/x", "builtin/gpt", "local/two words", "local/\n", "local/" + "x" * 201],
)
def test_an_unknown_model_is_refused_by_name(model: str) -> None:
    registry = ProviderRegistry([settings()])
    assert not registry.supports(model)
    with pytest.raises(InvalidInput) as refused:
        registry.resolve(model)
    assert refused.value.code == "unsupported_model"
    assert "builtin/repair" in refused.value.detail


def test_a_list_of_models_is_a_limit() -> None:
    registry = ProviderRegistry([settings(models=("small", "large"))])
    assert registry.supports("local/small")
    assert not registry.supports("local/medium")
    assert registry.models() == ("builtin/repair", "local/small", "local/large")


def test_two_providers_of_one_name_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="two providers"):
        ProviderRegistry([settings(), settings()])


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "With Space"},
        {"name": "builtin"},
        {"kind": "builtin"},
        {"kind": "mystery"},
        {"base_url": "ftp://host/"},
        {"base_url": "http://user:password@host/"},
        {"base_url": "http://host/?key=1"},
        {"base_url": None},
        {"api_key": SecretStr("a"), "api_key_file": Path("/b")},
        {"models": ("two words",)},
        {"context_window": 10},
        {"colour": "blue"},
    ],
)
def test_settings_that_cannot_work_are_refused_at_start(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**fields)


def test_a_key_never_shows_in_settings() -> None:
    assert "hidden" not in repr(settings(api_key=SecretStr("hidden")))


def test_a_key_file_is_read_again_each_time(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("first\n")
    key = ApiKey(settings(api_key_file=file).key_source())
    assert key.take() == "first"
    assert not key.has_changed()
    file.write_text("second\n")
    assert key.has_changed()
    assert key.take() == "second"


def test_a_key_file_that_is_away_may_come_back(tmp_path: Path) -> None:
    key = ApiKey(settings(api_key_file=tmp_path / "none").key_source())
    with pytest.raises(KeyUnusable) as missing:
        key.take()
    assert missing.value.retryable
    assert not key.has_changed()


def test_asking_what_is_supported_loads_no_sdk() -> None:
    program = (
        "import sys\n"
        "from codeagent.providers.registry import ProviderRegistry, ProviderSettings\n"
        "registry = ProviderRegistry([ProviderSettings(name='o', kind='openai', api_key='k')])\n"
        "assert registry.supports('o/x')\n"
        "registry.resolve('builtin/repair')\n"
        "loaded = {'openai', 'anthropic', 'pydantic_ai', 'genai_prices'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
