"""How many calls at once a provider worker makes to each of its providers."""

from __future__ import annotations

from typing import Any

from codeagent.cli.models import Models
from codeagent.providers.registry import ProviderSettings


def bounds(*providers: ProviderSettings, slots: int = 32) -> dict[str, int | None]:
    return {name: limits.concurrency for name, limits in Models(providers, {}, slots=slots).limits.items()}


def provider(name: str, **said: Any) -> ProviderSettings:
    return ProviderSettings(name=name, kind="openai", base_url="http://127.0.0.1:1/v1", **said)


def test_one_of_several_providers_has_half_of_the_slots() -> None:
    assert bounds(provider("a"), provider("b")) == {"builtin": None, "a": 16, "b": 16}
    assert bounds(provider("a"), provider("b"), slots=1) == {"builtin": None, "a": 1, "b": 1}


def test_the_only_one_has_them_all() -> None:
    assert bounds(provider("a")) == {"builtin": None, "a": None}


def test_what_settings_say_holds() -> None:
    assert bounds(provider("a", concurrency=30), provider("b", requests_per_minute=7)) == {
        "builtin": None,
        "a": 30,
        "b": 16,
    }
