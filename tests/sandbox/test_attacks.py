"""Every attack on every driver that runs here, through the worker into the log. What is expected stands with each."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.sandbox import drivers
from tests.sandbox.arena import Arena
from tests.sandbox.attack import attacks

WHOLE = os.environ.get("CODEAGENT_TEST_ATTACKS") == "all"
"""Else those that are quick and show most."""

pytestmark = pytest.mark.asyncio(loop_scope="module")


CHOSEN = [name for name, attack in attacks(own_kernel=False).items() if WHOLE or attack.quick]


@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("arena", drivers.wanted(whole=WHOLE), indirect=True, scope="module")
async def test_it_is_contained(
    request: pytest.FixtureRequest, arena: Arena, name: str, record_property: Callable[[str, object], None]
) -> None:
    driver = request.node.callspec.params["arena"]
    attack = attacks(own_kernel=arena.own_kernel)[name]
    record_property("attack", {"name": name, "category": attack.category, "driver": driver})
    assert await arena.attacked(attack) == [], attack.says
