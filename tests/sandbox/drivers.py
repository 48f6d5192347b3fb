"""Which drivers are attacked: all that run here, and none is left out in silence."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from codeagent.sandboxes.offers import OFFERS, Offer
from codeagent.sandboxes.protocol import IsolationLevel
from tests.conftest import unavailable

NAMED = os.environ.get("CODEAGENT_TEST_DRIVERS", "").split()
"""Drivers that have to run here: one that does not fails."""

STRONGEST = {offer.name: offer for offer in sorted(OFFERS, key=lambda offer: offer.level) if offer.level >= 2}
"""Each driver, at the highest level it offers."""

SLOTS = range(231_000, 231_002)
"""One for whoever attacks, one for the neighbour."""


def wanted() -> list[str]:
    """Those of which the tests know before they have looked: one that cannot run is skipped, or fails, by name."""
    return NAMED or [name for name, offer in STRONGEST.items() if offer.automatic or not missing(offer)]


def missing(offer: Offer) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        return list(offer.missing(Path(folder)))


def required(name: str) -> Offer:
    """The driver to be attacked. Skips or fails where it does not run."""
    offer = STRONGEST.get(name)
    if offer is None:
        raise LookupError(f"there is no driver {name}: there are {', '.join(STRONGEST)}")
    reasons = missing(offer)
    if reasons and NAMED:
        raise LookupError(f"{name} has to run here: {'; '.join(reasons)}")
    if reasons:
        unavailable(f"{name}: {'; '.join(reasons)}")
    assert offer.level >= IsolationLevel.KERNEL
    return offer
