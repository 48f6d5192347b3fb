"""`codeagent doctor`: which sandbox drivers isolate on this machine, at what level, and what the others lack."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from codeagent.cli.sandbox_host import configured, host_of
from codeagent.sandboxes.offers import OFFERS, Host, Offer
from codeagent.sandboxes.protocol import IsolationLevel, SandboxUnavailable
from codeagent.sandboxes.select import AUTO
from codeagent.settings.problems import Misconfigured

NOT_MET = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """What a driver's probe said at one level: the program's version, or why it cannot be used, with the remedies."""

    offer: Offer
    version: str = ""
    reasons: tuple[str, ...] = ()

    @property
    def proven(self) -> bool:
        return not self.reasons


def examine(minimum_level: int | None, state_dir: Path | None, *, as_json: bool) -> int:
    """Tries every driver and says what came of it. 0 if the configured driver, or one of them all, proves the minimum
    level; else 1."""
    try:
        settings = configured()
    except Misconfigured as wrong:
        sys.stderr.write(f"codeagent: {wrong.detail}\n")
        return NOT_MET
    minimum = IsolationLevel(minimum_level or settings.sandbox_minimum_level)
    if state_dir is not None:
        findings = asyncio.run(_try_all(host_of(settings, state_dir)))
    else:
        with tempfile.TemporaryDirectory(prefix="codeagent-doctor-") as folder:
            Path(folder).chmod(0o711)
            findings = asyncio.run(_try_all(host_of(settings, Path(folder))))
    chosen = _chosen(findings, minimum, settings.sandbox_driver)
    write = _json if as_json else _text
    sys.stdout.write("\n".join(write(findings, minimum, settings.sandbox_driver, chosen)) + "\n")
    return NOT_MET if chosen is None else 0


async def _try_all(host: Host) -> list[Finding]:
    # One after the other: they share the directory, and the probe has a time limit.
    return [await _try(offer, host) for offer in OFFERS]


async def _try(offer: Offer, host: Host) -> Finding:
    driver = offer.make(host)
    try:
        return Finding(offer, version=(await driver.probe()).version)
    except SandboxUnavailable as unavailable:
        return Finding(offer, reasons=unavailable.reasons)
    finally:
        await driver.shutdown()


def _chosen(findings: Sequence[Finding], minimum: IsolationLevel, driver: str) -> Finding | None:
    """What a worker so configured would take."""
    for finding in findings:
        wanted = finding.offer.automatic if driver == AUTO else finding.offer.name == driver
        if wanted and finding.proven and finding.offer.level >= minimum:
            return finding
    return None


def _json(findings: Sequence[Finding], minimum: IsolationLevel, driver: str, chosen: Finding | None) -> Iterator[str]:
    strongest = max((finding.offer.level for finding in findings if finding.proven), default=IsolationLevel.NONE)
    yield json.dumps(
        {
            "minimum_level": int(minimum),
            "driver": driver,
            "chosen": None if chosen is None else {"driver": chosen.offer.name, "level": int(chosen.offer.level)},
            "strongest_level": int(strongest),
            "drivers": [
                {
                    "driver": finding.offer.name,
                    "level": int(finding.offer.level),
                    "proven": finding.proven,
                    "version": finding.version,
                    "guarantee": finding.offer.guarantee,
                    "reasons": list(finding.reasons),
                }
                for finding in findings
            ],
        },
        indent=2,
    )


def _text(findings: Sequence[Finding], minimum: IsolationLevel, driver: str, chosen: Finding | None) -> Iterator[str]:
    for finding in sorted(findings, key=lambda found: -found.offer.level):
        state = f"proven ({finding.version})" if finding.proven else "cannot be used here"
        yield f"level {int(finding.offer.level)}  {finding.offer.name}: {state}"
        yield f"  {finding.offer.guarantee}"
        yield from (f"  - {reason}" for reason in finding.reasons)
    asked = "any driver" if driver == AUTO else f"driver {driver}"
    if chosen is None:
        yield f"Level {int(minimum)} with {asked}, as configured, cannot be had here: a worker would not start."
    else:
        yield f"A worker would take {chosen.offer.name} at level {int(chosen.offer.level)} (minimum {int(minimum)})."
