"""What happens inside a test run: outcome, error, frames and executed lines of each test, as it happens."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
import types
import unittest
from collections.abc import Iterator
from typing import Any

MOST_FRAMES = 30
LIMIT_AFTER_TIMEOUT = 2.0


class TestTimeout(BaseException):
    """Raised inside a test that takes too long. Not an Exception, so that `except Exception` does not swallow it."""

    __test__ = False


class Recorder:
    """Collects facts about tests and writes each as one line of JSON. `root` is the project's folder."""

    def __init__(self, root: str, descriptor: int, limit_seconds: float, traced: bool) -> None:
        self.root = os.path.realpath(root) + os.sep
        self._descriptor = descriptor
        self._limit_seconds = limit_seconds
        self._traced = traced
        self._own: dict[str, str] = {}
        self._lines: set[tuple[str, int]] = set()
        self._started = 0.0
        self._facts: dict[str, Any] = {}

    def begin(self, test: str) -> None:
        self._facts = {"id": test, "outcome": "passed", "error": "", "message": "", "frames": []}
        self._lines = set()
        self._started = time.monotonic()
        signal.signal(signal.SIGALRM, _time_is_up)
        # It rings again and again: the first one may be swallowed by a bare `except`.
        signal.setitimer(signal.ITIMER_REAL, self._limit_seconds, 0.5)
        if self._traced:
            threading.settrace(self._on_call)
            sys.settrace(self._on_call)

    def end(self) -> None:
        sys.settrace(None)
        threading.settrace(None)
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._facts["seconds"] = round(time.monotonic() - self._started, 4)
        if self._traced:
            lines: dict[str, list[int]] = {}
            for path, line in self._lines:
                lines.setdefault(path, []).append(line)
            self._facts["lines"] = lines
        self.write(self._facts)

    def failed(self, outcome: str, error: BaseException | None) -> None:
        self._facts["outcome"] = outcome
        if isinstance(error, TestTimeout):
            # Where one test is endless, others are: the rest gets less time, or the whole suite takes minutes.
            self._limit_seconds = min(self._limit_seconds, LIMIT_AFTER_TIMEOUT)
        if error is not None and not self._facts["error"]:
            self._facts.update(self.describe(error))

    def write(self, facts: dict[str, Any]) -> None:
        os.write(self._descriptor, (json.dumps(facts) + "\n").encode())

    def describe(self, error: BaseException) -> dict[str, Any]:
        """The error's kind, message and the frames that lie in the project, the innermost last."""
        cause: BaseException | None = error
        frames: list[list[Any]] = []
        while cause is not None and len(frames) < MOST_FRAMES:
            found = [
                [self.relative(frame.filename), line, frame.name]
                for frame, line in ((frame, frame.lineno) for frame in traceback.extract_tb(cause.__traceback__))
                if self.relative(frame.filename)
            ]
            if isinstance(cause, SyntaxError) and cause.filename and self.relative(cause.filename):
                found.append([self.relative(cause.filename), cause.lineno or 1, ""])
            frames = found + frames
            cause = cause.__cause__ or cause.__context__
        return {"error": type(error).__name__, "message": str(error)[:2000], "frames": frames[-MOST_FRAMES:]}

    def relative(self, filename: str) -> str:
        """The path below the project's folder, or an empty one."""
        known = self._own.get(filename)
        if known is None:
            full = os.path.realpath(filename)
            inside = full.startswith(self.root) and "site-packages" not in full and full.endswith(".py")
            known = self._own[filename] = os.path.relpath(full, self.root) if inside else ""
        return known

    def _on_call(self, frame: types.FrameType, event: str, argument: Any) -> Any:
        path = self.relative(frame.f_code.co_filename)
        if not path:
            return None
        lines = self._lines

        def on_line(inner: types.FrameType, kind: str, _argument: Any) -> Any:
            if kind == "line":
                lines.add((path, inner.f_lineno))
            return on_line

        return on_line


def _time_is_up(_number: int, _frame: types.FrameType | None) -> None:
    raise TestTimeout("the test took too long")


def pytest_plugin(recorder: Recorder, hasty: bool) -> object:
    """A plugin that tells the recorder what pytest sees. A hasty one ends the run at the first endless test."""
    import pytest  # noqa: PLC0415  # absent in projects that use unittest

    class Plugin:
        @pytest.hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
            recorder.begin(item.nodeid)
            yield
            recorder.end()

        def pytest_runtest_makereport(self, item: Any, call: Any) -> None:
            if call.excinfo is None:
                return
            skipped = call.excinfo.typename in {"Skipped", "XFailed"} or item.get_closest_marker("xfail") is not None
            recorder.failed("skipped" if skipped else "failed", None if skipped else call.excinfo.value)
            if hasty and call.excinfo.typename == TestTimeout.__name__:
                item.session.shouldstop = "one endless test is enough"

        @pytest.hookimpl(tryfirst=True)
        def pytest_sessionfinish(self, exitstatus: int) -> None:
            # What follows are summaries nobody reads, and they may take longer than the tests.
            recorder.write({"end": int(exitstatus)})
            os._exit(0)

        def pytest_exception_interact(self, node: Any, call: Any, report: Any) -> None:
            if getattr(report, "when", "collect") == "collect":
                error = call.excinfo.value
                facts = recorder.describe(error.__cause__ or error)
                recorder.write({"id": node.nodeid, "outcome": "error", "seconds": 0.0, **facts})

    return Plugin()


class UnittestResult(unittest.TestResult):
    """Tells the recorder what unittest sees. Modules that cannot be imported are errors of their own."""

    def __init__(self, recorder: Recorder, stop_at_first: bool, hasty: bool) -> None:
        super().__init__()
        self._hasty = hasty
        self._recorder = recorder
        self.failfast = stop_at_first

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._recorder.begin(test.id())

    def stopTest(self, test: unittest.TestCase) -> None:
        self._recorder.end()
        super().stopTest(test)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self.shouldStop = self.shouldStop or (self._hasty and err[0] is TestTimeout)
        broken = type(test).__name__ == "_FailedTest"
        self._recorder.failed("error" if broken else "failed", err[1])
        super().addError(test, err)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._recorder.failed("failed", err[1])
        super().addFailure(test, err)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self._recorder.failed("failed", err[1])
        super().addSubTest(test, subtest, err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._recorder.failed("skipped", None)
        super().addSkip(test, reason)
