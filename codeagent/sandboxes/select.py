"""Chooses the strongest driver this machine can prove. Never a weaker one than was asked for, or explicitly allowed."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from pathlib import Path

from codeagent.sandboxes.bwrap import Bubblewrap, BubblewrapDriver
from codeagent.sandboxes.protocol import IsolationLevel, SandboxUnavailable
from codeagent.sandboxes.sources import TrustedHost

_log = logging.getLogger(__name__)
DRIVERS = (Bubblewrap.name,)
"""By name, the default first."""
_OFFERED = (IsolationLevel.KERNEL, IsolationLevel.RLIMIT)


async def choose_driver(
    minimum_level: IsolationLevel,
    allow_level: IsolationLevel | None,
    state_dir: Path,
    *,
    runtimes: Sequence[Path] = (),
    slot_uids: range = range(200_000, 200_256),
    bwrap_path: str | None = None,
    trusted_hosts: Sequence[TrustedHost] = (),
    named: str | None = None,
) -> BubblewrapDriver:
    """A driver whose probe has passed; `named`, and no other, where one is asked for by name.

    `minimum_level` is what the deployment demands, `allow_level` a weaker level the operator consents to by name; there
    is no other way below the minimum. Raises `SandboxUnavailable` with what each level lacks and what to install.
    """
    floor = minimum_level if allow_level is None else min(minimum_level, allow_level)
    if floor is IsolationLevel.NONE:
        raise SandboxUnavailable(["running commands without isolation is not offered"])
    if named is not None and named not in DRIVERS:
        raise SandboxUnavailable([f"there is no driver {named!r}; drivers: {', '.join(DRIVERS)}"])
    reasons = _unusable_certificates(trusted_hosts)
    if reasons:
        raise SandboxUnavailable(reasons)
    for level in (offered for offered in _OFFERED if offered >= floor):
        driver = BubblewrapDriver(state_dir, level, runtimes, slot_uids, bwrap_path, trusted_hosts=trusted_hosts)
        try:
            await driver.probe()
        except SandboxUnavailable as unavailable:
            reasons += [f"{level.name}: {reason}" for reason in unavailable.reasons]
            await driver.shutdown()
            continue
        except BaseException:
            await driver.shutdown()
            raise
        if level < minimum_level:
            _log.warning("sandboxes run at level %s, below %s, as the operator allowed", level.name, minimum_level.name)
        return driver
    raise SandboxUnavailable(reasons or [f"no driver isolates at level {floor.name}"])


def missing_for(minimum_level: IsolationLevel, state_dir: Path) -> list[str]:
    """What keeps every driver below that level here, as far as that shows without starting a sandbox; empty where one
    may reach it. Blocking."""
    missing = [f"no driver isolates at level {int(minimum_level)}"]
    for level in (offered for offered in _OFFERED if offered >= minimum_level):
        missing = Bubblewrap(state_dir, level).missing()
        if not missing:
            break
    return missing


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
