"""What a sandbox worker is composed of: its driver, what performs with it, and what sweeps up after it."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from codeagent.artifacts.blobs import BlobFiles
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.artifacts.sweep import ArtifactSweep
from codeagent.broker.topics import SANDBOX_EVENTS
from codeagent.cli.parts import Parts, trusted_hosts
from codeagent.cli.sandbox_host import host_of
from codeagent.flags.features import LIVE_DELTAS
from codeagent.projections.artifact_references import named_among
from codeagent.projections.dependency_caches import recall
from codeagent.projects.git_credentials import SealedCredentials
from codeagent.quotas.reservations import Reservations
from codeagent.sandboxes.notes import Notes
from codeagent.sandboxes.offers import OfferedDriver
from codeagent.sandboxes.protocol import IsolationLevel
from codeagent.sandboxes.sandboxd.client import RemoteDriver
from codeagent.sandboxes.select import AUTO, choose_driver, lacking
from codeagent.settings import Settings
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger
from codeagent.workers.bounds import Bounds
from codeagent.workers.deltas import Send
from codeagent.workers.installing import Registries
from codeagent.workers.sandbox import SandboxPerformer

log = get_logger(__name__)


async def choose(settings: Settings) -> OfferedDriver:
    """The driver that the settings ask for, proven: the helper's, where one is named. Raises `SandboxUnavailable`."""
    driver = await (_own(settings) if settings.sandbox_helper is None else _helpers(settings, settings.sandbox_helper))
    metrics.SANDBOX_LEVEL.set(driver.level)
    gaps = lacking(driver.level, is_root=settings.sandbox_helper is not None or os.geteuid() == 0)
    if gaps:
        log.warning("sandbox.weaker_level", level=int(driver.level), means=gaps)
    return driver


async def _helpers(settings: Settings, socket: Path) -> RemoteDriver:
    only = None if settings.sandbox_driver == AUTO else settings.sandbox_driver
    driver = RemoteDriver(socket, IsolationLevel(settings.sandbox_minimum_level), only)
    try:
        await driver.probe()
    except BaseException:
        await driver.shutdown()
        raise
    return driver


async def _own(settings: Settings) -> OfferedDriver:
    if os.geteuid() == 0:
        log.warning("sandbox.worker_is_root", cure="run `codeagent sandboxd` as root, and the worker as nobody")
    host = replace(
        host_of(settings, settings.sandbox_dir),
        trusted_hosts=trusted_hosts(settings),
        parked=settings.sandbox_parked > 0,
    )
    return await choose_driver(IsolationLevel(settings.sandbox_minimum_level), None, host, settings.sandbox_driver)


def performer_of(parts: Parts, driver: OfferedDriver, send_delta: Send) -> SandboxPerformer:
    settings = parts.settings
    return SandboxPerformer(
        driver,
        LocalArtifactStore(settings.artifacts_dir),
        send_delta,
        answers_topic=SANDBOX_EVENTS,
        limits=Bounds(
            settings.limit_policy(),
            Reservations(parts.database, settings.sandbox_quota).reserve,
            settings.egress_hosts,
        ),
        most_workspaces=settings.sandbox_workspaces,
        notes=Notes(settings.sandbox_dir),
        is_live=partial(parts.features.enabled, LIVE_DELTAS),
        credential_for=SealedCredentials(parts.database, parts.box).open,
        registries=Registries(settings.sandbox_registries, partial(recall, parts.database)),
    )


def sweep_of(parts: Parts) -> ArtifactSweep:
    """Beside the worker that stores most of them, and has their disk."""
    settings = parts.settings
    return ArtifactSweep(
        BlobFiles(settings.artifacts_dir),
        partial(named_among, parts.database),
        grace_seconds=timedelta(hours=settings.artifact_grace_hours).total_seconds(),
        removed=metrics.SANDBOX_COLLECTED.labels("artifact").inc,
    )
