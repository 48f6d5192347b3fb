"""Turns signals into something a single-threaded loop can sleep on."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from types import FrameType
from typing import Any

_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class SignalWaiter:
    """Counts requests to stop (SIGTERM, SIGINT, SIGHUP) and wakes the sleeper for them and for ended children.

    Main thread only. `take` and `give_back` leave the process's own handlers as they were.
    """

    def __init__(self) -> None:
        self.stop_requests = 0
        self._pipe: tuple[int, int] | None = None
        self._previous_wakeup = -1
        self._previous_handlers: dict[signal.Signals, Any] = {}

    def take(self) -> None:
        if self._pipe is not None:
            return
        self._pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if hasattr(os, "pipe2") else _nonblocking_pipe()
        self._previous_wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        for number in (*_STOP, signal.SIGCHLD):
            self._previous_handlers[number] = signal.signal(number, self._on_signal)

    def give_back(self) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers.clear()
        if self._pipe is not None:
            signal.set_wakeup_fd(self._previous_wakeup)
            for end in self._pipe:
                os.close(end)
            self._pipe = None

    def sleep(self, timeout_seconds: float) -> None:
        """Returns after the time, or as soon as a signal came in."""
        if self._pipe is None:
            return
        readable, _, _ = select.select([self._pipe[0]], [], [], max(timeout_seconds, 0.0))
        if readable:
            with contextlib.suppress(BlockingIOError):
                while len(os.read(self._pipe[0], 4096)) == 4096:
                    pass

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number in _STOP:
            self.stop_requests += 1


def _nonblocking_pipe() -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends
