"""`codeagent doctor`: which sandbox drivers isolate on this machine, at what level, and what the others lack."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from codeagent.cli.sandbox_host import configured, host_of
from codeagent.sandboxes.image_check import faults_of
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


@dataclass(frozen=True, slots=True)
class Report:
    """What was asked for and what was found. `chosen` is what a worker so configured would take; `images` are those of
    the settings, tried in it, each with why it does not serve, or nothing."""

    minimum: IsolationLevel
    driver: str
    findings: Sequence[Finding]
    chosen: Finding | None
    images: Mapping[str, str]


def examine(minimum_level: int | None, state_dir: Path | None, *, as_json: bool) -> int:
    """Tries every driver and says what came of it. 0 if the configured driver, or one of them all, proves the minimum
    level, and every image of the settings serves in it; else 1."""
    try:
        settings = configured()
    except Misconfigured as wrong:
        sys.stderr.write(f"codeagent: {wrong.detail}\n")
        return NOT_MET
    minimum = IsolationLevel(minimum_level or settings.sandbox_minimum_level)
    if state_dir is not None:
        report = asyncio.run(_look(host_of(settings, state_dir), minimum, settings.sandbox_driver))
    else:
        with tempfile.TemporaryDirectory(prefix="codeagent-doctor-") as folder:
            Path(folder).chmod(0o711)
            report = asyncio.run(_look(host_of(settings, Path(folder)), minimum, settings.sandbox_driver))
    write = _json if as_json else _text
    sys.stdout.write("\n".join(write(report)) + "\n")
    return NOT_MET if report.chosen is None or any(report.images.values()) else 0


async def _look(host: Host, minimum: IsolationLevel, driver: str) -> Report:
    # One after the other: they share the directory, and the probe has a time limit. Without the images: one that is
    # not there says nothing of a driver.
    findings = [await _try(offer, replace(host, images={})) for offer in OFFERS]
    chosen = _chosen(findings, minimum, driver)
    images = {} if chosen is None else await _try_images(chosen.offer, host)
    return Report(minimum, driver, tuple(findings), chosen, images)


async def _try_images(offer: Offer, host: Host) -> dict[str, str]:
    """Of each image, why it does not serve; empty where it does."""
    found: dict[str, str] = {}
    for name, place in host.images.items():
        driver = offer.make(replace(host, images={name: place}))
        try:
            found |= await faults_of(driver, [name])
        except SandboxUnavailable as unavailable:
            found[name] = "; ".join(reason.removeprefix(f"image {name}: ") for reason in unavailable.reasons)
        finally:
            await driver.shutdown()
    return found


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


def _json(report: Report) -> Iterator[str]:
    chosen = report.chosen
    strongest = max((finding.offer.level for finding in report.findings if finding.proven), default=IsolationLevel.NONE)
    yield json.dumps(
        {
            "minimum_level": int(report.minimum),
            "driver": report.driver,
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
                for finding in report.findings
            ],
            "images": [{"image": name, "serves": not why, "reason": why} for name, why in report.images.items()],
        },
        indent=2,
    )


def _text(report: Report) -> Iterator[str]:
    for finding in sorted(report.findings, key=lambda found: -found.offer.level):
        state = f"proven ({finding.version})" if finding.proven else "cannot be used here"
        yield f"level {int(finding.offer.level)}  {finding.offer.name}: {state}"
        yield f"  {finding.offer.guarantee}"
        yield from (f"  - {reason}" for reason in finding.reasons)
    for name, why in report.images.items():
        yield f"image {name}: {f'does not serve: {why}' if why else 'serves'}"
    asked = "any driver" if report.driver == AUTO else f"driver {report.driver}"
    minimum, chosen = int(report.minimum), report.chosen
    if chosen is None:
        yield f"Level {minimum} with {asked}, as configured, cannot be had here: a worker would not start."
    else:
        if any(report.images.values()):
            yield "Images that do not serve keep a worker from starting, or their projects' runs from working."
        yield f"A worker would take {chosen.offer.name} at level {int(chosen.offer.level)} (minimum {minimum})."
