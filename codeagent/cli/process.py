"""Runs one process of the system: an event loop, the parts in order, a monitor port, and a stop that drains."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from codeagent import descriptors
from codeagent.cli.websocket import BoundedWebSocket
from codeagent.errors import CodeAgentError
from codeagent.settings import Misconfigured
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

WEBSOCKET_FRAME_BYTES = 64 << 10

Action = Callable[[], Awaitable[object]]
Check = Callable[[], Awaitable[bool]]


@dataclass(slots=True)
class Process:
    """What a role consists of: what to start, in order; what to stop, in order; what being ready means."""

    role: str
    stop_seconds: float = 15.0
    """Bound of each action that stops it."""
    start: list[Action] = field(default_factory=list)
    stop: list[Action] = field(default_factory=list)
    checks: dict[str, Check] = field(default_factory=dict)


async def _holds(check: Check) -> bool:
    try:
        async with asyncio.timeout(2.0):
            return await check()
    except (CodeAgentError, OSError, TimeoutError):
        return False


def monitor_app(process: Process) -> ASGIApp:
    """Health and metrics of a process that serves nothing else."""

    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        results = {name: await _holds(check) for name, check in process.checks.items()}
        ready = all(results.values())
        return JSONResponse({"status": "ok" if ready else "unavailable", "checks": results}, 200 if ready else 503)

    async def exposition(_: Request) -> Response:
        return Response(metrics.exposition(), media_type="text/plain; version=0.0.4")

    return Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/startupz", readyz),
            Route("/metrics", exposition),
        ]
    )


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, so that a port is known, or refused, before anything else has started."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(1024)
    listener.set_inheritable(True)
    return listener


class HttpServer:
    """uvicorn on a socket of ours, stopped by us and by no signal."""

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        drain_seconds: float,
        *,
        protocol: type[asyncio.Protocol] | Literal["auto"] = "auto",
        keep_alive_seconds: int = 75,
    ) -> None:
        config = uvicorn.Config(
            app,
            http=protocol,
            # Who is believed about addresses is the application's to say.
            proxy_headers=False,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            timeout_graceful_shutdown=int(max(drain_seconds, 1)),
            timeout_keep_alive=keep_alive_seconds,
            ws=BoundedWebSocket,
            ws_max_size=WEBSOCKET_FRAME_BYTES,
            ws_ping_interval=20.0,
            ws_ping_timeout=20.0,
            # Memory for each client's dictionary, for frames that are mostly small.
            ws_per_message_deflate=False,
            lifespan="off",
        )
        self._server = uvicorn.Server(config)
        self._listener = listener
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._serve())
        while not self._server.started:
            if self._task.done():
                self._task.result()
            await asyncio.sleep(0.01)

    async def _serve(self) -> None:
        # `serve` would take the signals over; `_serve` is the same without that.
        await self._server._serve([self._listener])

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)


def _settle_memory() -> None:
    """What was loaded at start lives as long as the process: the collector need not walk it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


Build = Callable[[], Coroutine[Any, Any, Process]]


def _stop_signals() -> asyncio.Event:
    """Set by SIGTERM or SIGINT, which end nothing by themselves from now on."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping


async def _built(build: Build, stopping: asyncio.Event) -> Process | None:
    """None when it was asked to stop before: what had been begun, such as a sandbox that is tried out, is gone then."""
    building, asked = asyncio.create_task(build()), asyncio.create_task(stopping.wait())
    await asyncio.wait({building, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if building.done():
        return building.result()
    building.cancel()
    await asyncio.gather(building, return_exceptions=True)
    return None


async def run(process: Process, stopping: asyncio.Event) -> int:
    """Starts everything, waits until it is asked to stop, stops everything. Returns the exit status."""
    status = 0
    try:
        for action in process.start:
            await action()
        _settle_memory()
        log.info("process.started", role=process.role)
        await stopping.wait()
        log.info("process.stopping", role=process.role)
    except CodeAgentError as error:
        log.error("process.refused_to_start", role=process.role, error=error.detail)
        status = 1
    for action in process.stop:
        try:
            async with asyncio.timeout(process.stop_seconds):
                await action()
        except TimeoutError:
            log.warning("process.stop_timed_out", role=process.role)
        except Exception:
            log.exception("process.stop_failed", role=process.role)
    log.info("process.stopped", role=process.role)
    return status


def run_process(build: Build) -> int:
    """Builds and runs a process on a loop of its own, to its exit status. Raises `Misconfigured`."""

    async def main() -> int:
        stopping = _stop_signals()
        try:
            process = await _built(build, stopping)
        except Misconfigured:
            raise
        except (CodeAgentError, OSError, ValueError) as error:
            log.error("process.refused_to_start", error=getattr(error, "detail", str(error)))
            return 1
        return 0 if process is None else await run(process, stopping)

    descriptors.allow_most()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, contextlib.suppress(KeyboardInterrupt):
        return runner.run(main())
    return 130
