"""Chooses a driver this machine can prove. Never a weaker one than was asked for, or explicitly allowed."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from pathlib import Path

from codeagent.sandboxes.offers import OFFERS, Host, Offer, OfferedDriver
from codeagent.sandboxes.protocol import IsolationLevel, SandboxUnavailable
from codeagent.sandboxes.sources import TrustedHost

_log = logging.getLogger(__name__)

AUTO = "auto"


async def choose_driver(
    minimum_level: IsolationLevel, allow_level: IsolationLevel | None, host: Host, name: str = AUTO
) -> OfferedDriver:
    """A driver whose probe has passed.

    `minimum_level` is what the deployment demands, `allow_level` a weaker level the operator consents to by name; there
    is no other way below the minimum. `name`: the only driver that will do; with `AUTO` the first of `OFFERS` that
    keeps the minimum, and a weaker one only if none of them does. Raises `SandboxUnavailable` with what each lacks and
    what to install.
    """
    floor = minimum_level if allow_level is None else min(minimum_level, allow_level)
    if floor is IsolationLevel.NONE:
        raise SandboxUnavailable(["running commands without isolation is not offered"])
    candidates = _candidates(floor, minimum_level, name)
    reasons = _unusable_certificates(host.trusted_hosts)
    if reasons:
        raise SandboxUnavailable(reasons)
    for offer in candidates:
        driver = offer.make(host)
        try:
            await driver.probe()
        except SandboxUnavailable as unavailable:
            reasons += [f"{offer.name} at level {int(offer.level)}: {reason}" for reason in unavailable.reasons]
            await driver.shutdown()
            continue
        except BaseException:
            await driver.shutdown()
            raise
        if offer.level < minimum_level:
            _log.warning("sandboxes run at level %d, below %d, as the operator allowed", offer.level, minimum_level)
        return driver
    raise SandboxUnavailable(reasons)


def _candidates(floor: IsolationLevel, minimum_level: IsolationLevel, name: str) -> list[Offer]:
    """Raises `SandboxUnavailable` where there is none."""
    known = dict.fromkeys(offer.name for offer in OFFERS)
    if name != AUTO and name not in known:
        raise SandboxUnavailable([f"there is no driver {name}: there are {', '.join(known)}"])
    named = [offer for offer in OFFERS if (offer.automatic if name == AUTO else offer.name == name)]
    found = [offer for offer in named if offer.level >= floor]
    if not found:
        who = "no driver isolates" if name == AUTO else f"{name} does not isolate"
        raise SandboxUnavailable([f"{who} at level {int(floor)}"])
    return sorted(found, key=lambda offer: offer.level < minimum_level)


def missing_for(minimum_level: IsolationLevel, state_dir: Path) -> list[str]:
    """What the least demanding driver of that level lacks here, as far as that shows without starting a sandbox; empty
    where any may reach it. Blocking."""
    offers = [offer for offer in OFFERS if offer.automatic and offer.level >= minimum_level]
    missing = {offer.level: list(offer.missing(state_dir)) for offer in reversed(offers)}
    return missing[min(missing)] if all(missing.values()) else []


def lacking(level: IsolationLevel, *, is_root: bool) -> tuple[str, ...]:
    """What sandboxes of that level do without, compared with level KERNEL; as sentences for people."""
    if level >= IsolationLevel.KERNEL:
        return ()
    groups = (
        "memory is limited for each process, not for a command as a whole;",
        "a command may use every processor;",
    )
    users = (
        "the size of each file is limited, not that of a workspace;",
        "commands run under your own user id: what breaks out of a sandbox may do what you may do.",
    )
    return groups if is_root else (*groups, *users)


def _unusable_certificates(trusted_hosts: Sequence[TrustedHost]) -> list[str]:
    reasons = []
    for known in trusted_hosts:
        try:
            if known.certificates is not None:
                ssl.create_default_context(cafile=str(known.certificates))
        except OSError as error:
            why = "no certificates in PEM form" if isinstance(error, ssl.SSLError) else error.strerror
            reasons.append(f"trusted host {known.host}: {known.certificates} cannot be used: {why}")
    return reasons
