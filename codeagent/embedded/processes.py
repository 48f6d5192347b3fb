"""Keeps the services and servers of one machine running: forks, watches, restarts, and stops them in order."""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from codeagent.embedded.children import collect, fork_child, kill_group
from codeagent.embedded.directories import make_directory, write_atomically
from codeagent.embedded.log_files import bound_log
from codeagent.embedded.stop_signals import SignalWaiter
from codeagent.embedded.supervised import Backoff, ChildSpec, Server, WatchedServer

__all__ = ["ChildSpec", "ProcessSupervisor", "Server", "WatchedServer"]

_log = structlog.get_logger(__name__)

_LONGEST_NAP_SECONDS = 0.5
_UPKEEP_SECONDS = 2.0


@dataclass(slots=True)
class _Child:
    spec: ChildSpec
    pid: int | None = None
    started_at: float = 0.0
    restarts: int = 0
    backoff: Backoff = field(default_factory=Backoff)


@dataclass(slots=True)
class _Watch:
    watched: WatchedServer
    hook_is_due: bool = False
    restarts: int = 0
    started_at: float = 0.0
    backoff: Backoff = field(default_factory=Backoff)


class ProcessSupervisor:
    """Runs in the main thread of a process that has no other thread and no event loop, because it forks.

    `data_dir` receives `processes.json` (name -> process id) after each change, and `logs/<name>.log` of each child
    when `log_to_files`. Signals are taken over by `start` and given back by `shutdown`.
    """

    def __init__(
        self,
        children: Sequence[ChildSpec],
        *,
        data_dir: Path,
        servers: Sequence[WatchedServer] = (),
        drain_seconds: float = 20.0,
        healthy_seconds: float = 30.0,
        log_to_files: bool = False,
    ) -> None:
        self._children = [_Child(spec) for spec in children]
        self._watches = [_Watch(watched) for watched in servers]
        names = [child.spec.name for child in self._children] + [watch.watched.name for watch in self._watches]
        if len(set(names)) != len(names):
            raise ValueError("names of children and servers must be unique")
        self._data_dir = data_dir
        self._drain_seconds = drain_seconds
        self._healthy_seconds = healthy_seconds
        self._log_to_files = log_to_files
        self._signals = SignalWaiter()
        self._published: dict[str, int] = {}
        self._next_upkeep = 0.0
        self._is_draining = False

    def pids(self) -> dict[str, int]:
        """Process ids of the children and servers that run now."""
        running = {child.spec.name: child.pid for child in self._children}
        running |= {watch.watched.name: watch.watched.server.pid for watch in self._watches}
        return {name: pid for name, pid in running.items() if pid is not None}

    def restarts(self) -> dict[str, int]:
        """How often each child and server was restarted."""
        counts = {child.spec.name: child.restarts for child in self._children}
        return counts | {watch.watched.name: watch.restarts for watch in self._watches}

    def request_stop(self) -> None:
        """What SIGTERM does: `run` drains and returns. Another request while it drains ends the draining."""
        self._signals.stop_requests += 1

    def start(self) -> None:
        """Takes over the signals and forks every child."""
        if threading.active_count() > 1:
            _log.warning("supervisor_has_threads", threads=threading.active_count())
        make_directory(self._data_dir / "logs" if self._log_to_files else self._data_dir)
        self._signals.take()
        # What the parent imported stays shared with the children as long as no collector writes into it.
        gc.collect()
        gc.freeze()
        now = time.monotonic()
        for child in self._children:
            self._fork(child, now)
        self._publish()

    def run(self, until: Callable[[], bool] | None = None) -> int:
        """Starts everything, supervises until a stop is requested or `until` is true, drains, returns the exit code."""
        try:
            self.start()
            while not self._signals.stop_requests and not (until is not None and until()):
                self.tick(_LONGEST_NAP_SECONDS)
        finally:
            code = self.shutdown()
        return code

    def tick(self, timeout_seconds: float = 0.0) -> None:
        """One round: sleeps until something happens or the time is up, then reaps and restarts what has ended."""
        self._signals.sleep(min(timeout_seconds, self._next_attempt_seconds()))
        self._reap()
        now = time.monotonic()
        for watch in self._watches:
            self._tend_server(watch, now)
        for child in self._children:
            self._tend_child(child, now)
        if now >= self._next_upkeep:
            self._next_upkeep = now + _UPKEEP_SECONDS
            self._bound_logs()
        self._publish()

    def shutdown(self) -> int:
        """Stops children stage by stage within the drain time, kills the rest, then stops the servers.

        Returns 0, or 1 if a child had to be killed.
        """
        killed = self._drain()
        for watch in reversed(self._watches):
            watch.watched.server.stop(10.0)
        with contextlib.suppress(OSError):
            (self._data_dir / "processes.json").unlink(missing_ok=True)
        self._signals.give_back()
        gc.unfreeze()
        return 1 if killed else 0

    def _drain(self) -> list[str]:
        self._is_draining = True
        give_up_at = time.monotonic() + self._drain_seconds
        patience = max(self._signals.stop_requests, 1)
        stages = sorted({child.spec.stop_stage for child in self._children})
        for index, stage in enumerate(stages):
            group = [child for child in self._children if child.spec.stop_stage == stage]
            for child in group:
                if child.pid is not None:
                    os.kill(child.pid, signal.SIGTERM)
            # A stage that is slow to drain may not use up the time of those after it.
            share_seconds = (give_up_at - time.monotonic()) / (len(stages) - index)
            self._await_end(group, time.monotonic() + share_seconds, patience)
        self._await_end(self._children, give_up_at, patience)
        killed = [child.spec.name for child in self._children if child.pid is not None]
        for child in self._children:
            if child.pid is not None:
                _log.warning("service_killed", service=child.spec.name, drain_seconds=self._drain_seconds)
                kill_group(child.pid)
        # SIGKILL cannot be refused, only delayed by a disk: even then the waiting has an end.
        self._await_end(self._children, time.monotonic() + 5.0, None)
        return killed

    def _await_end(self, children: Sequence[_Child], give_up_at: float, patience: int | None) -> None:
        while any(child.pid is not None for child in children):
            remaining_seconds = give_up_at - time.monotonic()
            if remaining_seconds <= 0 or (patience is not None and self._signals.stop_requests > patience):
                return
            self._signals.sleep(min(remaining_seconds, _LONGEST_NAP_SECONDS))
            self._reap()
            self._publish()

    def _next_attempt_seconds(self) -> float:
        waiting = [child.backoff.not_before for child in self._children if child.pid is None]
        return max(min(waiting, default=math.inf) - time.monotonic(), 0.0)

    def _fork(self, child: _Child, now: float) -> None:
        log_path = self._data_dir / "logs" / f"{child.spec.name}.log" if self._log_to_files else None
        child.started_at = now
        try:
            child.pid = fork_child(child.spec.target, log_path, demotion=child.spec.demotion)
        except OSError as error:
            child.backoff.failed(now)
            _log.error("service_not_started", service=child.spec.name, error=error.strerror)
        else:
            _log.info("service_started", service=child.spec.name, pid=child.pid)

    def _tend_child(self, child: _Child, now: float) -> None:
        if child.pid is None and now >= child.backoff.not_before and not self._signals.stop_requests:
            child.restarts += 1
            self._fork(child, now)

    def _tend_server(self, watch: _Watch, now: float) -> None:
        if now < watch.backoff.not_before or self._signals.stop_requests:
            return
        name, server, on_restart = watch.watched.name, watch.watched.server, watch.watched.on_restart
        fault = server.fault()
        if fault is None and not watch.hook_is_due:
            return
        if now - watch.started_at >= self._healthy_seconds:
            watch.backoff.settled()
        watch.backoff.failed(now)
        try:
            if fault is not None:
                _log.warning("server_restarting", server=name, fault=fault)
                watch.started_at = now
                watch.restarts += 1
                watch.hook_is_due = on_restart is not None
                server.restart(lambda: self._signals.stop_requests > 0)
            if watch.hook_is_due and on_restart is not None:
                on_restart()
                watch.hook_is_due = False
        except Exception as error:  # whatever a hook raises, the other processes must stay supervised
            _log.error("server_restart_failed", server=name, error=str(error))

    def _reap(self) -> None:
        known = set(self.pids().values())
        for child in self._children:
            if child.pid is not None:
                self._reap_child(child, child.pid)
        if os.getpid() == 1:
            _reap_strangers(known)

    def _reap_child(self, child: _Child, pid: int) -> None:
        status = collect(pid)
        if status is None:
            return
        now = time.monotonic()
        child.pid = None
        if now - child.started_at >= self._healthy_seconds:
            child.backoff.settled()
        child.backoff.failed(now)
        if not self._is_draining:
            _log.warning("service_ended", service=child.spec.name, pid=pid, status=status)

    def _bound_logs(self) -> None:
        paths = [watch.watched.server.log_path for watch in self._watches]
        if self._log_to_files:
            paths += [self._data_dir / "logs" / f"{child.spec.name}.log" for child in self._children]
        for path in paths:
            try:
                bound_log(path)
            except OSError as error:
                _log.warning("log_not_bounded", log=path.name, error=error.strerror)

    def _publish(self) -> None:
        current = self.pids()
        if current == self._published:
            return
        try:
            write_atomically(self._data_dir / "processes.json", json.dumps({**current, "supervisor": os.getpid()}))
        except OSError as error:
            _log.warning("process_list_not_written", error=error.strerror)
        else:
            self._published = current


def _reap_strangers(known: set[int]) -> None:
    """As a container's first process we inherit every orphan in it, and nobody else will collect them."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in known:
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(ended.si_pid, os.WNOHANG)
