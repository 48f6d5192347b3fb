"""Every attack on every driver that runs here, through the worker into the log. What is expected stands with each."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.sandbox import drivers
from tests.sandbox.arena import Arena
from tests.sandbox.attack import attacks

WHOLE = os.environ.get("CODEAGENT_TEST_ATTACKS") == "all"
"""Else those that are quick and show most."""

pytestmark = pytest.mark.asyncio(loop_scope="module")


def cases() -> list[Any]:
    chosen = [name for name, attack in attacks(own_kernel=False).items() if WHOLE or attack.quick]
    return [pytest.param(driver, name, id=f"{driver}-{name}") for driver in drivers.wanted() for name in chosen]


@pytest.mark.parametrize(("arena", "name"), cases(), indirect=["arena"])
async def test_it_is_contained(arena: Arena, name: str, record_property: Callable[[str, object], None]) -> None:
    attack = attacks(own_kernel=arena.own_kernel)[name]
    record_property("attack", {"name": name, "category": attack.category, "driver": arena.driver.name})
    assert await arena.attacked(attack) == [], attack.says
