"""Providers by name: what is accepted as settings, what is found, and what an unknown model is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_ai.models.openai import OpenAIResponsesModel

from codeagent.errors import InvalidInput
from codeagent.messages.conversation import UserMessage
from codeagent.providers.keyring import Keyring
from codeagent.providers.keys import KeyUnusable, read_key
from codeagent.providers.limits import CallLimits
from codeagent.providers.openai import OpenAIConnection
from codeagent.providers.protocol import ModelRequest
from codeagent.providers.registry import ProviderRegistry, ProviderSettings
from codeagent.providers.repair.provider import RepairProvider
from codeagent.providers.vendor import Timeouts
from tests.servers.model_server import ModelServer
from tests.servers.providers import ignore


def settings(**fields: Any) -> ProviderSettings:
    return ProviderSettings(**{"name": "local", "kind": "openai", "base_url": "http://127.0.0.1:1/v1", **fields})


def test_the_built_in_model_needs_no_settings() -> None:
    registry = ProviderRegistry()
    provider, model = registry.resolve("builtin/repair")
    assert isinstance(provider, RepairProvider)
    assert model == "repair"
    assert registry.names() == ("builtin",)
    assert registry.models() == ("builtin/repair",)


def test_limits_of_a_provider_are_settings_of_it_and_none_at_first() -> None:
    assert settings().limits() == CallLimits(None, None, None)
    limited = settings(requests_per_minute=60, tokens_per_minute=90_000, concurrency=8)
    assert limited.limits() == CallLimits(60, 90_000, 8)
    for field in ("requests_per_minute", "tokens_per_minute", "concurrency"):
        with pytest.raises(ValidationError):
            settings(**{field: 0})


async def test_each_kind_resolves_to_one_provider_however_often_it_is_asked_for() -> None:
    registry = ProviderRegistry(
        [
            settings(),
            settings(name="claude", kind="anthropic", base_url="http://127.0.0.1:1"),
            settings(name="gemini", kind="google", base_url="http://127.0.0.1:1"),
        ]
    )
    for name in ("local", "claude", "gemini"):
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


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({}, ["/v1/chat/completions"]),
        ({"api": "responses"}, ["/v1/responses"]),
    ],
    ids=["a server of one's own", "as it is told"],
)
async def test_which_of_openais_apis_is_spoken(fields: dict[str, Any], paths: list[str]) -> None:
    with ModelServer() as server:
        registry = ProviderRegistry([settings(base_url=server.openai_url, **fields)])
        provider, model = registry.resolve("local/x")
        await provider.generate(ModelRequest(model, (UserMessage(text="Hello."),)), ignore)
        assert [request.path for request in server.received] == paths
        await registry.close()


async def test_openais_own_service_is_asked_by_responses_and_told_to_store_nothing() -> None:
    connection = OpenAIConnection("openai", Keyring(lambda: "k"), Timeouts())
    assert isinstance(connection.model("x"), OpenAIResponsesModel)
    assert connection.settings["openai_store"] is False
    await connection.close()


def test_what_a_request_is_put_to_and_how_tells_settings_apart_and_what_it_costs_does_not() -> None:
    same = [
        settings(),
        settings(name="other"),
        settings(api_key=SecretStr("k"), prices={"m": {"input_usd": 1, "output_usd": 1}}, concurrency=3),
    ]
    others = [
        settings(base_url="http://127.0.0.1:2/v1"),
        settings(kind="anthropic"),
        settings(api="responses"),
        settings(output_limit_field="max_tokens"),
    ]
    assert len({each.asking_digest for each in same}) == 1
    assert len({each.asking_digest for each in (*same, *others)}) == 1 + len(others)


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
        {"kind": "anthropic", "api": "chat"},
        {"api": "assistants"},
        {"base_url": "ftp://host/"},
        {"base_url": "http://user:password@host/"},
        {"base_url": "http://host/?key=1"},
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
    source = settings(api_key_file=file).key_source()
    assert read_key(source) == "first"
    file.write_text("second\n")
    assert read_key(source) == "second"


def test_a_key_file_that_is_away_may_come_back(tmp_path: Path) -> None:
    with pytest.raises(KeyUnusable) as missing:
        read_key(settings(api_key_file=tmp_path / "none").key_source())
    assert missing.value.retryable


def test_a_vendors_own_service_without_a_key_in_the_settings_is_sent_none() -> None:
    with pytest.raises(KeyUnusable) as missing:
        read_key(settings(base_url=None).key_source())
    assert not missing.value.retryable


def test_asking_what_is_supported_loads_no_sdk() -> None:
    program = (
        "import sys\n"
        "from codeagent.providers.registry import ProviderRegistry, ProviderSettings\n"
        "registry = ProviderRegistry([ProviderSettings(name='o', kind='openai', api_key='k')])\n"
        "assert registry.supports('o/x')\n"
        "registry.resolve('builtin/repair')\n"
        "loaded = {'openai', 'anthropic', 'google.genai', 'pydantic_ai', 'genai_prices'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
