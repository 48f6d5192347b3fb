"""Which drivers are attacked: all that run here, and none is left out in silence."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from codeagent.sandboxes.containers import ContainerDriver
from codeagent.sandboxes.offers import OFFERS, Host, Offer, OfferedDriver
from codeagent.sandboxes.protocol import IsolationLevel
from tests.conftest import unavailable

NAMED = os.environ.get("CODEAGENT_TEST_DRIVERS", "").split()
"""Drivers that have to run here: one that does not fails."""

OFFERED: dict[str, Offer] = {}
"""Each driver by its name, at the first level it offers of those that limit commands as a whole."""
for _offer in OFFERS:
    if _offer.level >= IsolationLevel.KERNEL:
        OFFERED.setdefault(_offer.name, _offer)

SLOTS = range(231_000, 231_002)
"""One for whoever attacks, one for the neighbour."""


UNPARKED = "bwrap, unparked"
"""Bubblewrap without sandboxes that wait for their command, as single commands are run: other words on its start."""

CONTAINERS = os.environ.get("CODEAGENT_TEST_CONTAINERS") == "1"


def wanted(*, whole: bool = False) -> list[str]:
    """The drivers to attack. Those that cannot run are among them, to be skipped, or to fail, by their name."""
    found = NAMED or [name for name, offer in OFFERED.items() if offer.automatic] + ["podman"] * CONTAINERS
    return found + [UNPARKED] * (whole and "bwrap" in found)


def required(name: str) -> Offer:
    """The driver to be attacked. Skips or fails where it does not run."""
    offer = OFFERED.get(name.partition(",")[0])
    if offer is None:
        raise LookupError(f"there is no driver {name}: there are {', '.join(OFFERED)}")
    with tempfile.TemporaryDirectory() as folder:
        reasons = "; ".join(offer.missing(Path(folder)))
    if reasons and NAMED:
        pytest.fail(f"{name} has to run here: {reasons}")
    if reasons:
        unavailable(f"{name}: {reasons}")
    return offer


def made(name: str, state_dir: Path, request: pytest.FixtureRequest) -> OfferedDriver:
    """The driver, as a worker makes it. `request` hands out the container engine that tests have."""
    if name == "podman":
        # Its image is the tests' own, which the offer knows nothing of: the engine says itself what is missing.
        return ContainerDriver(state_dir, request.getfixturevalue("podman").options, SLOTS)
    return required(name).make(Host(state_dir, slot_uids=SLOTS, parked=name != UNPARKED))
