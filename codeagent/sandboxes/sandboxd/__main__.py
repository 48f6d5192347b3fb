"""Runs the helper: `codeagent sandboxd`. Needs root for level 2 and up, and nothing from its environment."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

import uvloop

from codeagent import descriptors
from codeagent.sandboxes.notes import Notes
from codeagent.sandboxes.protocol import SandboxUnavailable
from codeagent.sandboxes.sandboxd.arguments import Orders, parse
from codeagent.sandboxes.sandboxd.server import SandboxServer, empty_scratch
from codeagent.sandboxes.select import choose_driver
from codeagent.sandboxes.uninterrupted import in_thread

_log = logging.getLogger("codeagent.sandboxes.sandboxd")


class _Lines(logging.Formatter):
    """One JSON object a line, with the names that the other processes use."""

    def format(self, record: logging.LogRecord) -> str:
        words = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "timestamp": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "service": "sandboxd",
        }
        if record.exc_info:
            words["exception"] = self.formatException(record.exc_info)
        return json.dumps(words)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 once it was asked to stop, 1 where this machine cannot do it, 2 for arguments that cannot be."""
    orders = parse(arguments)
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    os.umask(0o022)
    descriptors.allow_most()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(orders))
    except SandboxUnavailable as unavailable:
        for reason in unavailable.reasons:
            _log.error("cannot start: %s", reason)
        return 1
    except OSError as error:
        _log.error("cannot start: %s", error)
        return 1
    return 0


async def _serve(orders: Orders) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    working = asyncio.ensure_future(_work(orders))
    asked = asyncio.ensure_future(stopping.wait())
    await asyncio.wait({working, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    working.cancel()  # of no effect where it has failed
    with suppress(asyncio.CancelledError):
        await working


async def _work(orders: Orders) -> None:
    """Until it is cancelled; nothing of it is left then."""
    uid, gid = orders.worker_uid, orders.worker_gid
    driver = await choose_driver(orders.minimum_level, None, orders.host, orders.driver)
    try:
        scratch = await in_thread(empty_scratch, orders.host.state_dir / "fetched")
        # The worker's own: what it tells operators of its workspaces lies beside them.
        await in_thread(Notes(orders.host.state_dir).give_to, uid, gid)
        server = SandboxServer(driver, orders.ceiling, scratch, uid=uid, gid=gid)
        try:
            await server.start(orders.socket)
            _log.info("serving user %d: %s at level %d", uid, driver.name, driver.level)
            await asyncio.get_running_loop().create_future()
        finally:
            await server.stop()
    finally:
        await driver.shutdown()


if __name__ == "__main__":
    sys.exit(main())
