"""Every attack on every driver that runs here, through the worker into the log. What is expected stands with each."""

from __future__ import annotations

import os

import pytest

from tests.sandbox import drivers
from tests.sandbox.arena import Arena
from tests.sandbox.attack import attacks

WHOLE = os.environ.get("CODEAGENT_TEST_ATTACKS") == "all"
"""Else those that are quick, on the first driver, and a few on the others."""

pytestmark = pytest.mark.asyncio(loop_scope="module")


ALL = attacks(own_kernel=False)
DRIVERS = drivers.wanted(whole=WHOLE)
FULLY = DRIVERS if WHOLE else DRIVERS[:1]


async def contained(request: pytest.FixtureRequest, arena: Arena, name: str) -> None:
    attack = attacks(own_kernel=arena.own_kernel)[name]
    if attack.egress and not arena.driver.reaches_out:
        pytest.skip(f"{arena.driver.name} lets no command reach a host")
    told = {"name": name, "category": attack.category, "driver": request.node.callspec.params["arena"]}
    request.node.user_properties.append(("attack", told))
    assert await arena.attacked(attack) == [], attack.says


@pytest.mark.parametrize("name", [name for name, attack in ALL.items() if WHOLE or attack.quick])
@pytest.mark.parametrize("arena", FULLY, indirect=True, scope="module")
async def test_it_is_contained(request: pytest.FixtureRequest, arena: Arena, name: str) -> None:
    await contained(request, arena, name)


if FULLY != DRIVERS:

    @pytest.mark.parametrize("name", [name for name, attack in ALL.items() if attack.everywhere])
    @pytest.mark.parametrize("arena", DRIVERS[1:], indirect=True, scope="module")
    async def test_it_is_contained_by_the_others(request: pytest.FixtureRequest, arena: Arena, name: str) -> None:
        await contained(request, arena, name)
