"""Whether a worker's driver still isolates as it proved at the start: asked again on change, and regularly."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from codeagent.sandboxes.offers import OfferedDriver
from codeagent.sandboxes.protocol import SandboxUnavailable
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

LOOK_SECONDS = 30.0
PROVE_SECONDS = 3600.0


class Standing:
    """Watches a driver whose probe has passed.

    Every `look_seconds` its fingerprint is compared; it is probed again when that has changed, when the last proof is
    `prove_seconds` old, and at every look once it has failed.
    """

    def __init__(
        self, driver: OfferedDriver, *, look_seconds: float = LOOK_SECONDS, prove_seconds: float = PROVE_SECONDS
    ) -> None:
        self._driver = driver
        self._look_seconds = look_seconds
        self._prove_seconds = prove_seconds
        self._fingerprint = ""
        self._proven_at = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self.reasons: tuple[str, ...] = ()
        """Why it does not isolate any more; empty while it does."""

    @property
    def holds(self) -> bool:
        return not self.reasons and self._driver.ready

    async def check(self) -> bool:
        """One of the checks of readiness."""
        return self.holds

    async def start(self) -> None:
        self._fingerprint = await self._driver.fingerprint()
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._look_seconds)
            try:
                await self.look()
            except Exception as error:
                # Not knowing is no proof.
                log.exception("sandbox.probe_failed")
                self.reasons = (f"the probe failed: {type(error).__name__}",)

    async def look(self) -> None:
        """One look: proves again what has to be."""
        fingerprint = await self._driver.fingerprint()
        due = time.monotonic() - self._proven_at >= self._prove_seconds
        if not self.reasons and fingerprint == self._fingerprint and not due:
            return
        if fingerprint != self._fingerprint:
            # Nothing is started on what has not been proven.
            self.reasons = ("something has changed and is being proven again",)
        try:
            await self._driver.probe(again=True)
        except SandboxUnavailable as unavailable:
            self.reasons = unavailable.reasons
            log.error("sandbox.unproven", driver=self._driver.name, reasons=unavailable.reasons)
            return
        if self.reasons:
            log.info("sandbox.proven_again", driver=self._driver.name)
        self._fingerprint, self._proven_at, self.reasons = fingerprint, time.monotonic(), ()
